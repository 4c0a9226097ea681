"""One student that has learned all concepts' targets at once (training/distillation.py).

    dW = argmin  | eps(x_t, e_c) - eps0(x_t, e_a) |^2 over concepts  +  | eps(x_t, e) - eps0(x_t, e) |^2 over what stays

The change may be of every weight of the denoiser. Retained prompts stay, and invented names around the erased ones. K
names take K of the few directions in which names' embeddings differ, so an edit of keys and values cannot tell hundreds
apart; the denoiser as a whole can.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from pydantic import Field
from torch import Tensor

from advanchor.fusion.anchors import anchor_of, anchor_problem
from advanchor.fusion.lessons import Target, lessons
from advanchor.fusion.member import FusionError, Member, Part, Workshop
from advanchor.fusion.retained import Retained
from advanchor.fusion.statistics import OWN, accumulate, anchor_contribution
from advanchor.fusion.ways import anchor_edit
from advanchor.models.base import Base
from advanchor.settings import Section
from advanchor.training.distillation import Distillation, DistillSettings
from advanchor.training.engine import TorchEngine

NEEDS = ("anchor",)
CHECKPOINT = "distill.pt"
FRONT = f"{OWN}anchor/"  # before the name of a tensor of an anchor file, "/" and the concept's name


class Settings(Section):
    distill: DistillSettings = Field(default=DistillSettings(), description="how the one student of distill is trained")


def problem(method: Mapping[str, Any]) -> str:
    return anchor_problem(method, "distill")


def contribution(base: Base, member: Member, tensors: Mapping[str, Tensor], settings: Settings) -> Mapping[str, Tensor]:
    """The anchor file's tensors: what they mean is worked out when everybody's are there."""
    return {f"{FRONT}{name}/{member.concept.name}": tensor for name, tensor in tensors.items()}


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
    told = settings.distill
    targets = [target(base, totals, member, told.towards) for member in members.values()]
    training = Distillation(base, told)
    engine = TorchEngine(base.backbone, dict(zip(training.student.names, training.weights, strict=True)))
    training.lessons = lessons(base, engine, targets, retained, told)
    if told.start == "closed_form":
        training.student.start(closed_form(base, targets, members, retained, settings, workshop))
    checkpoint = workshop.folder / CHECKPOINT if workshop.folder else None
    delta = training.run(checkpoint, identity(base, members, retained, settings), workshop.progress("distill"))
    facts = {"num_retained_prompts": len(retained.weights), "distilled_weights": sum(map(torch.numel, delta.values()))}
    return Part(training.student.base_tensors(), delta, facts=facts)


def closed_form(
    base: Base,
    targets: Sequence[Target],
    members: Mapping[str, Member],
    retained: Retained,
    settings: Any,
    workshop: Workshop,
) -> Mapping[str, Tensor]:
    """dW of what reads the prompt, towards the targets (ways/anchor_edit.py)."""
    totals: dict[str, Tensor] = {}
    for one in targets:
        accumulate(totals, anchor_contribution(base, one.e_c, one.e_a))
    return anchor_edit.solve(base, totals, members, retained, settings, workshop).delta


def target(base: Base, totals: Mapping[str, Tensor], member: Member, towards: str) -> Target:
    """A member's prompts, and what they become."""
    concept = member.concept
    keys = {name: name.removeprefix(FRONT).partition("/") for name in totals if name.startswith(FRONT)}
    own = {key: totals[name].float() for name, (key, _, whose) in keys.items() if whose == concept.name}
    with torch.no_grad():
        e_c, e_a = anchor_of(base, member, own)
        if towards == "neutral":
            e_a = base.encode(concept.neutral)
    return Target(concept, e_c, e_a)


def identity(base: Base, members: Mapping[str, Member], retained: Retained, settings: Any) -> str:
    """sha256 of all that decides what is learned: which training a checkpoint is of."""
    content = [
        base.digest,
        settings.distill.model_dump(mode="json"),
        [[name, member.sha256, member.concept.model_dump(mode="json")] for name, member in members.items()],
        retained.retain.model_dump(mode="json"),
        list(retained.weights.items()),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def repair(member: Member) -> NoReturn:
    raise FusionError("--repair changes single concepts' contributions; distill teaches one student all of them")
