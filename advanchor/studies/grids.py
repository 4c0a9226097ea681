"""What each setting does: the paper's two losses and three strategies, and one setting after another."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from advanchor.concepts import Concept
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods import MethodSettings
from advanchor.models.base import Base
from advanchor.studies import rivals
from advanchor.studies.curves import Estimate, mean_interval
from advanchor.studies.lab import (
    Found,
    Row,
    Size,
    Study,
    Trial,
    around,
    concepts,
    crossed,
    number,
    percent,
    text,
    thousandths,
)

DEFAULT = "as in the comparison"
LOSSES, STRATEGIES = ("adv1", "adv2"), ("alternating", "sequential", "cyclical")


def strategies(concept: Concept) -> dict[str, MethodSettings]:
    settings = rivals.adversarial(concept)
    return {
        f"{loss}, {strategy}": settings.model_copy(update={"loss": loss, "strategy": strategy})
        for loss in LOSSES
        for strategy in STRATEGIES
    }


def one_by_one(concept: Concept) -> dict[str, MethodSettings]:
    """The settings of the comparison, and every change of one of them."""
    settings = rivals.adversarial(concept)
    changes: dict[str, tuple[Any, ...]] = {
        "anchor_steps": (0, 3, 30),
        "anchor_lr": (settings.anchor_lr / 3, settings.anchor_lr * 3),
        "lr": (settings.lr / 3, settings.lr * 3),
        "steps": (settings.steps // 2, settings.steps * 2),
        "batch_size": (1, 8),
        "preserve_weight": (0.0, 1.0, 100.0),
        "trained_weights": ("cross_attention",),
        "perturb_tokens": ("concept",),
        "perturb_space": ("token_embeds",),
        "redraw": (True,),
    }
    found: dict[str, MethodSettings] = {DEFAULT: settings}
    for name, values in changes.items():
        found |= {f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}":
                  settings.model_copy(update={name: value}) for value in values}  # fmt: skip
    return found


def rows(base: Base, found: Sequence[Found], size: Size) -> list[Row]:
    """A row per kind and setting, means over its erasures."""

    def mean(own: Sequence[Found], name: str) -> Estimate:
        return mean_interval([one.scores[name] for one in own if one.scores[name] is not None])

    groups = dict.fromkeys((one.trial.concept.kind, one.trial.label) for one in found)
    listed = []
    for kind, label in groups:
        own = [one for one in found if (one.trial.concept.kind, one.trial.label) == (kind, label)]
        norms = [one.result["facts"]["e_adv_relative_norm"] for one in own]
        listed.append(
            {"kind": kind, "settings": label, "erasures": len(own), "norm": sum(norms) / len(norms)}
            | {name: mean(own, name) for name in ("ua", "ira", "cra", "degradation")}
        )
    return listed


COLUMNS = {
    "kind": ("kind", text),
    "settings": ("settings", text),
    "erasures": ("erasures", text),
    "ua": ("UA", around(percent)),
    "ira": ("IRA", around(percent)),
    "cra": ("CRA", around(percent)),
    "degradation": ("degradation", around(thousandths)),
    "norm": ("length of e_adv", number),
}


def plot(listed: Sequence[Row], figure: Any) -> None:
    """A bar of UA and one of degradation for every setting; a column per kind."""
    kinds = list(dict.fromkeys(row["kind"] for row in listed))
    labels = list(dict.fromkeys(row["settings"] for row in listed))
    figure.set_size_inches(4 * len(kinds) + 2, 1.5 + 0.32 * len(labels))
    panels = figure.subplots(1, 2 * len(kinds), squeeze=False, sharey=True)[0]
    for number_, kind in enumerate(kinds):
        own = [row for row in listed if row["kind"] == kind]
        for axis, name, factor, colour in zip(
            panels[2 * number_ :], ("ua", "degradation"), (100, 1000), ("tab:blue", "tab:red"), strict=False
        ):
            axis.barh([row["settings"] for row in own], [factor * row[name][0] for row in own], color=colour)
            axis.set_title(f"{kind}: {'UA, %' if name == 'ua' else 'degradation x 1000'}", fontsize="small")
    panels[0].invert_yaxis()


def study(title: str, settings: Any, folder: str, explained: str) -> Study:
    def trials(base: Base, size: Size) -> list[Trial]:
        kinds = ("style",) if size.quick else ("style", "object", "identity")
        listed = [c for kind in kinds for c in concepts(base, kind, rivals.VALIDATION[kind][:1])]
        return crossed(listed, settings, replace(size, seeds=1))

    return Study(title, trials, EvaluationSettings(**rivals.PICTURES), rows, COLUMNS, plot, folder, explained)


MEANING = "Length of e_adv: relative to the concept's own embeddings. Degradation: x 1000."
STRATEGIES_STUDY = study("Two losses, three strategies", strategies, "settings", MEANING)
HYPERPARAMETERS = study("One setting after another", one_by_one, "settings", MEANING)
