"""The closed forms: from summed contributions to one delta. Everything here is float64 until the delta itself."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from advanchor.concepts import KindName
from advanchor.fusion.statistics import GRAM, SHIFT
from advanchor.guard import constrained_inverse, with_ridge

FusionMethod = Literal["closed_form", "anchor_edit", "task_arithmetic", "neurons"]


class FusionSettings(BaseModel):
    """How erasures become one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: FusionMethod = Field(
        default="closed_form",
        description="from the deltas; from the anchors; the sum of the deltas; anchors as neurons of the text encoder",
    )
    method_by_kind: dict[KindName, FusionMethod] = Field(
        default={}, description="another method for concepts of a kind: what they amount to is added up"
    )
    retain_weight: float = Field(
        default=1.0, ge=0, description="gamma: weight of all retained prompts together relative to all concepts"
    )
    ridge: float = Field(default=1e-5, gt=0, description="lambda, as a share of the mean eigenvalue of the Gram matrix")
    neighbours: int = Field(default=8, ge=0, description="retained prompts nearest to each concept that weigh more")
    neighbour_weight: float = Field(default=2.0, ge=1, description="how many times as much they weigh")
    empty: Literal["exact", "weight"] = Field(
        default="exact", description="the empty prompt is kept exactly, or by a weight"
    )
    empty_weight: float = Field(default=1.0, ge=0, description="that weight, relative to all concepts")
    scale: float = Field(default=1.0, gt=0, description="alpha, of task_arithmetic only")
    towards: Literal["anchor", "neutral"] = Field(
        default="anchor", description="what neurons lead to: the learned anchor, or the neutral prompt"
    )
    reach: int = Field(default=8, ge=0, description="neurons cover so many tokens after a concept's last one, too")
    threshold: float = Field(
        default=0.57,
        gt=0,
        lt=1,
        description="score at which neurons begin to speak: 1 is the concept, 0 what is retained",
    )

    def method_for(self, kind: str) -> FusionMethod:
        return self.method_by_kind.get(kind, self.method)  # type: ignore[call-overload]


def closed_form(totals: Mapping[str, Tensor], retained: Tensor, kept: Tensor, ridge: float) -> dict[str, Tensor]:
    """dW = (sum_i dW_i E_i E_i^T) (sum_i E_i E_i^T + R + lambda I)^-1 with dW kept = 0, float32, for every projection.

    totals: sums of `statistics`; retained: R = gamma E_p E_p^T (D, D); kept: (D, m).
    """
    inverse = constrained_inverse(with_ridge(totals[GRAM] + retained, ridge), kept)
    return {name: (target @ inverse).float() for name, target in totals.items() if name != GRAM}


def anchor_edit(
    totals: Mapping[str, Tensor], retained: Tensor, kept: Tensor, ridge: float, base: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """W = (lambda W0 + sum_i W0 E_a,i E_i^T + W0 R) (lambda I + sum_i E_i E_i^T + R)^-1, as dW = W - W0.

    It needs no deltas: dW = W0 (sum_i (E_a,i - E_i) E_i^T) (...)^-1, where the last two factors are the same for every
    projection. totals: sums of `anchor_statistics`; base: W0 by name.
    """
    edit = totals[SHIFT] @ constrained_inverse(with_ridge(totals[GRAM] + retained, ridge), kept)
    return {name: (weight.double().cpu() @ edit).float() for name, weight in base.items()}


def task_arithmetic(totals: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """dW = alpha sum_i dW_i (Ilharco et al. 2022, arXiv 2212.04089)."""
    return {name: (scale * total).float() for name, total in totals.items()}
