"""Unified Concept Editing (Gandikota et al. 2024, arXiv 2308.14761) towards learned anchors instead of words.

    dW = W0 ( sum_i (E_a,i - E_i) E_i^T ) ( sum_i E_i E_i^T + R + lambda I )^-1,     dW C = 0

It needs no deltas: the last two factors are the same for every projection.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from advanchor.fusion.anchors import anchor_of, anchor_problem
from advanchor.fusion.edits import edited
from advanchor.fusion.member import FusionError, Member, Part, Workshop
from advanchor.fusion.retained import Retained, RetainSettings
from advanchor.fusion.statistics import GRAM, SHIFT, anchor_contribution
from advanchor.models.base import Base
from advanchor.training.projection import constrained_inverse, with_ridge

NEEDS = ("anchor",)


class Settings(RetainSettings):
    pass


def problem(method: Mapping[str, Any]) -> str:
    return anchor_problem(method, "anchor_edit")


def contribution(base: Base, member: Member, tensors: Mapping[str, Tensor], settings: Settings) -> Mapping[str, Tensor]:
    e_c, e_a = anchor_of(base, member, tensors)
    return anchor_contribution(base, e_c, e_a)


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
        lambda own, gram, exactly, weights: anchor_edit(own, gram, exactly, settings.ridge, weights),
        whole=True,
    )


def anchor_edit(
    totals: Mapping[str, Tensor], retained: Tensor, exactly: Tensor, ridge: float, base: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """dW, float32, for every projection.

    totals: sums of `anchor_statistics`; retained: R (D, D); exactly: C (D, m); base: W0 by name.
    """
    edit = totals[SHIFT] @ constrained_inverse(with_ridge(totals[GRAM] + retained, ridge), exactly)
    return {name: (weight.double().cpu() @ edit).float() for name, weight in base.items()}


def repair(member: Member) -> NoReturn:
    raise FusionError("--repair changes single concepts' contributions, which anchor_edit shares among all")
