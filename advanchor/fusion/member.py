"""What a way of fusing is given, one erasure, and what it makes of all of them, its part of the model."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from advanchor.concepts import Concept


class FusionError(ValueError):
    """A fusion that cannot be made from what was named."""


class Member(BaseModel):
    """One erased concept of a fusion, and the file that its contribution was read from."""

    model_config = ConfigDict(frozen=True)

    concept: Concept
    task: str
    method: dict[str, Any]
    base: str
    base_digest: str
    run: str  # URL of the run directory, or the fused folder that a repair belongs to
    path: str  # of the file in it
    sha256: str
    ua: float | None = None  # of the erasure on its own
    scale: float = 1.0  # how many times as much it counts in a sum of deltas; by how much its neurons speak earlier


@dataclass
class Part:
    """What one way of fusing adds to the model."""

    base_tensors: dict[str, Tensor]  # W0 by the names of both
    delta: dict[str, Tensor] = field(default_factory=dict)  # of the denoiser, float32
    neurons: dict[str, Tensor] = field(default_factory=dict)  # of the text encoder, float32
    facts: dict[str, Any] = field(default_factory=dict)
