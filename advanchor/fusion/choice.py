"""`method: auto`: which way of fusing suits a kind of concepts (the measurements are in docs/fusion.md).

Deltas that were trained behind a projection leave other prompts alone, so their sum does too; a few others can also be
summed. Names are many and alike: summing or solving for them damages names that should stay, and neurons do not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from advanchor.fusion.neurons import TextEncoderError, clip_parts, text_encoder
from advanchor.fusion.sources import Finished
from advanchor.fusion.ways import AUTO, FusionSettings
from advanchor.models.base import Base

FEW_NAMES = 1  # up to this many names that were trained without a projection are summed
FEW_PROJECTED_NAMES = 4  # up to this many that were trained behind one
FEW = 8  # up to this many styles, objects or marks that were trained without one


@dataclass(frozen=True)
class Choice:
    """The way for one kind, and why."""

    kind: str
    way: str
    why: str
    count: int

    def __str__(self) -> str:
        return f"{self.kind} ({self.count}): {self.way}, {self.why}"


def choose(found: Sequence[Finished], settings: FusionSettings, load: Callable[[], Base]) -> list[Choice]:
    """A choice for every kind of concepts that the settings leave to `auto`.

    load: the base, asked for only where it matters.
    """
    by_kind: dict[str, list[Finished]] = {}
    for one in found:
        by_kind.setdefault(one.concept.kind, []).append(one)
    return [
        Choice(kind, *chosen_way(kind, own, load), len(own))
        for kind, own in by_kind.items()
        if settings.way_for(kind) == AUTO
    ]


def chosen_way(kind: str, found: Sequence[Finished], load: Callable[[], Base]) -> tuple[str, str]:
    """The way for all erasures of one kind, and why."""
    fits = partial(all_fit, found)
    projected = all(is_projected(one.result["method"]) for one in found)
    few_names = FEW_PROJECTED_NAMES if projected else FEW_NAMES
    few = len(found) <= (few_names if kind == "identity" else FEW)
    if kind == "identity" and not few:
        if fits("neurons") and holds_neurons(load()):
            return "neurons", f"since more than {few_names} such names crowd each other out in the denoiser's weights"
    elif projected:
        return "task_arithmetic", "since deltas that were trained behind a projection add up"
    if few:
        return "task_arithmetic", "since a few deltas add up"
    if fits("closed_form"):
        return "closed_form", "since a sum of so many deltas would harm what is retained"
    return "task_arithmetic", "since nothing else takes what was trained here"


def is_projected(method: Mapping[str, Any]) -> bool:
    """Whether it was trained behind a projection: uce's retain_weight is something else, and it trains nothing."""
    return "lr" in method and (method.get("retain_weight") or 0) > 0


def all_fit(found: Sequence[Finished], way: str) -> bool:
    return not any(one.problem(way) for one in found)


def holds_neurons(base: Base) -> bool:
    try:
        clip_parts(text_encoder(base))
    except TextEncoderError:
        return False
    return True
