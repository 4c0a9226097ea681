"""The sum of the deltas (task arithmetic, Ilharco et al. 2022, arXiv 2212.04089).

dW = alpha sum_i dW_i
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from advanchor.fusion.edits import base_tensors
from advanchor.fusion.member import Member, Part, Workshop
from advanchor.fusion.retained import Retained
from advanchor.models.base import Base
from advanchor.settings import Section

NEEDS = ("delta",)


class Settings(Section):
    scale: float = Field(default=1.0, gt=0, description="alpha, of task_arithmetic only")


def problem(method: Mapping[str, Any]) -> str:
    return ""


def contribution(base: Base, member: Member, tensors: Mapping[str, Tensor], settings: Settings) -> Mapping[str, Tensor]:
    return tensors


def weight(member: Member) -> float:
    return member.scale


def solve(
    base: Base,
    totals: Mapping[str, Tensor],
    members: Mapping[str, Member],
    retained: Retained,
    settings: Settings,
    workshop: Workshop,
) -> Part:
    return Part(base_tensors(base, totals), task_arithmetic(totals, settings.scale))


def task_arithmetic(totals: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """alpha times the sums, float32."""
    return {name: (scale * total).float() for name, total in totals.items()}


def repair(member: Member) -> Literal["strengthen"]:
    """It counts for more in the sum."""
    return "strengthen"
