"""The experiments behind the tables; each is a command, `advanchor study NAME`."""

import importlib
from typing import Any

STUDIES: dict[str, tuple[str, str]] = {  # name -> module and the Study in it
    "tuning": ("tuning", "TUNING"),
    "rivals": ("rivals", "RIVALS"),
    "ablation": ("tuning", "ABLATION"),
    "anchors": ("anchors", "ANCHORS"),
    "styles": ("kinds", "STYLES_STUDY"),
    "objects": ("kinds", "OBJECTS_STUDY"),
    "identities": ("kinds", "IDENTITIES"),
    "mark": ("mark", "MARK_STUDY"),
    "prompts": ("prompts", "PROMPTS"),
    "strategies": ("grids", "STRATEGIES_STUDY"),
    "hyperparameters": ("grids", "HYPERPARAMETERS"),
    "sensitivity": ("sensitivity", "SENSITIVITY"),
    "robustness": ("robustness", "ROBUSTNESS"),
}


def load(name: str) -> Any:
    """A lab.Study. KeyError for a name that STUDIES does not have."""
    module, study = STUDIES[name]
    return getattr(importlib.import_module(f"advanchor.studies.{module}"), study)
