"""An erasure that goes on from another delta: how a fusion is repaired (`advanchor fuse --repair`).

The student starts at the given delta and the teacher stays the base: dW becomes that delta and what was missing.
"""

from typing import Any, Literal

import fsspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from advanchor.artifacts import ArtifactError, sha256, unpack
from advanchor.training import Context, Erasure

VERSION = 1
PACKABLE = False  # each goes on from its own settings


class Settings(BaseModel):
    """Of the method that erased the concept, and of the delta to start from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["retune"] = "retune"
    trained_weights: Literal["cross_attention_kv"] = Field(
        default="cross_attention_kv", description="what fusions are made of"
    )
    lr: float = Field(gt=0, description="learning rate of the student (Adam)")
    method: dict[str, Any] = Field(description="settings of the method that erased the concept")
    start: str = Field(description="delta file, where all nodes see it")
    start_sha256: str = Field(description="of that file")
    round: int = Field(ge=1, description="of how many tries this is: each has other draws")


def erase(context: Context, settings: Settings) -> list[Erasure]:
    from advanchor.methods import METHODS, MethodSettings

    inner = TypeAdapter(MethodSettings).validate_python(settings.method)
    if "retain_weight" in type(inner).model_fields:  # no guard: it would change the delta to start from
        inner = inner.model_copy(update={"retain_weight": 0.0})
    with fsspec.open(settings.start, "rb") as file:
        data = file.read()  # type: ignore[union-attr]
    if sha256(data) != settings.start_sha256:
        raise ArtifactError(f"{settings.start} is not the delta to start from: sha256 differs")
    for slot in range(len(context.concepts)):
        context.engine.load(context.delta.checked(unpack(data, settings.start)[0]), slot)
    return METHODS[inner.name].erase(context, inner)
