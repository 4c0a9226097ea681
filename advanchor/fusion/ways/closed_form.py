"""The deltas' least-squares answer (the form of MACE, Lu et al. 2024, arXiv 2403.06135).

    dW = ( sum_i dW_i E_i E_i^T ) ( sum_i E_i E_i^T + R + lambda I )^-1,     dW C = 0

R = gamma E_p E_p^T of retained prompts; C is kept exactly (retained.py). Everything is float64 until the delta itself.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from advanchor.fusion.edits import edited
from advanchor.fusion.member import FusionError, Member, Part, Workshop
from advanchor.fusion.retained import Retained, RetainSettings
from advanchor.fusion.statistics import FUSABLE, GRAM, erasure_statistics
from advanchor.models.base import Base
from advanchor.models.text import fill
from advanchor.training.projection import constrained_inverse, with_ridge

NEEDS = ("statistics", "delta")


class Settings(RetainSettings):
    pass


def problem(method: Mapping[str, Any]) -> str:
    trained = method.get("trained_weights")
    if trained in FUSABLE:
        return ""
    return f"was erased with method.trained_weights: {trained}; closed_form fuses only {', '.join(FUSABLE)}"


def contribution(base: Base, member: Member, tensors: Mapping[str, Tensor], settings: Settings) -> Mapping[str, Tensor]:
    if GRAM in tensors:
        return tensors
    # an erasure of before statistics were kept: its delta says the same
    concept = member.concept
    return erasure_statistics(base, tensors, base.encode([fill(t, concept.name) for t in concept.templates]))


def weight(member: Member) -> float:
    return 1.0


def solve(
    base: Base,
    totals: Mapping[str, Tensor],
    members: Mapping[str, Member],
    retained: Retained,
    settings: Settings,
    workshop: Workshop,
) -> Part:
    return edited(
        base,
        totals,
        len(members),
        retained,
        lambda own, gram, exactly, _: closed_form(own, gram, exactly, settings.ridge),
        whole=False,
    )


def closed_form(totals: Mapping[str, Tensor], retained: Tensor, exactly: Tensor, ridge: float) -> dict[str, Tensor]:
    """dW, float32, for every projection.

    totals: sums of `statistics`; retained: R (D, D); exactly: C (D, m).
    """
    inverse = constrained_inverse(with_ridge(totals[GRAM] + retained, ridge), exactly)
    return {name: (target @ inverse).float() for name, target in totals.items() if name != GRAM}


def repair(member: Member) -> Literal["retrain"]:
    """The delta is trained again, from the fused one."""
    if "lr" not in member.method:
        name = member.method["name"]
        raise FusionError(
            f"--repair tunes again, but {member.concept.name!r} was erased by {name}, which trains nothing"
        )
    return "retrain"
