"""Both lines of defence: the denoiser has lost the concepts (distill), the text encoder no longer names them (neurons).

The one stands where somebody brings the original text encoder, the other where something is left in the denoiser.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from advanchor.fusion.anchors import anchor_problem
from advanchor.fusion.member import FusionError, Member, Part, Workshop
from advanchor.fusion.retained import Retained
from advanchor.fusion.ways import distill, neurons
from advanchor.models.base import Base

NEEDS = ("anchor",)


def problem(method: Mapping[str, Any]) -> str:
    return anchor_problem(method, "distill+neurons")


def contribution(base: Base, member: Member, tensors: Mapping[str, Tensor], settings: Any) -> Mapping[str, Tensor]:
    return {
        **neurons.contribution(base, member, tensors, settings),
        **distill.contribution(base, member, tensors, settings),
    }


def weight(member: Member) -> float:
    return 1.0


def solve(
    base: Base,
    totals: Mapping[str, Tensor],
    members: Mapping[str, Member],
    retained: Retained,
    settings: Any,
    workshop: Workshop,
) -> Part:
    encoder = neurons.solve(base, totals, members, retained, settings, workshop)
    denoiser = distill.solve(base, totals, members, retained, settings, workshop)
    return Part(
        {**denoiser.base_tensors, **encoder.base_tensors},
        denoiser.delta,
        encoder.neurons,
        {**encoder.facts, **denoiser.facts},
    )


def repair(member: Member) -> NoReturn:
    raise FusionError("--repair changes single concepts' contributions; distill teaches one student all of them")
