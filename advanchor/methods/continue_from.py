"""An erasure that goes on from another delta: how a fusion is repaired (`advanchor fuse --repair`).

The student starts at the given delta and the teacher stays the base: dW becomes that delta and what was missing. No
projection is used, also where the first erasure had one: it would change the delta to start from.
"""

from typing import Literal

import fsspec
from pydantic import Field

from advanchor.artifacts import ArtifactError, from_bytes, sha256
from advanchor.concepts import Concept
from advanchor.methods.registry import METHODS, MethodSettings
from advanchor.settings import Section
from advanchor.training.context import Context, Erasure, TrainedWeights
from advanchor.training.cost import Cost

VERSION = 1
PACKABLE = False  # each goes on from its own settings


class Settings(Section):
    """Of the method that erased the concept, and of the delta to start from."""

    name: Literal["continue_from"] = "continue_from"
    trained_weights: TrainedWeights = Field(
        default="cross_attention_kv", description="of the delta to start from: those that the concept was erased with"
    )
    lr: float = Field(gt=0, description="learning rate of the student (Adam)")
    method: MethodSettings = Field(description="settings of the method that erased the concept")
    start: str = Field(description="delta file, where all nodes see it")
    start_sha256: str = Field(description="of that file")
    round: int = Field(ge=1, description="of how many tries this is: each has other draws")


def erase(context: Context, settings: Settings) -> list[Erasure]:
    with fsspec.open(settings.start, "rb") as file:
        data = file.read()  # type: ignore[union-attr]
    if sha256(data) != settings.start_sha256:
        raise ArtifactError(f"{settings.start} is not the delta to start from: sha256 differs")
    for slot in range(len(context.concepts)):
        context.engine.load(context.delta.checked(from_bytes(data, settings.start)[0]), slot)
    return METHODS[settings.method.name].erase(context, settings.method)


def cost(settings: Settings, concept: Concept) -> Cost:
    return METHODS[settings.method.name].cost(settings.method, concept)


def problems(settings: Settings, concept: Concept) -> list[str]:
    return METHODS[settings.method.name].problems(settings.method, concept)
