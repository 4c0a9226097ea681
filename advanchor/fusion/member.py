"""What a way of fusing is given, one erasure, and what it makes of all of them, its part of the model."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
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


@dataclass
class Workshop:
    """Where a way of fusing that trains may keep what it has come to, and whom it tells how far it is."""

    folder: Path | None = None  # None: it keeps nothing, and starts anew after an interruption
    say: Callable[[str], None] = lambda text: None

    def progress(self, what: str) -> Callable[[int, int, float], None]:
        """Says step, number of steps, loss and, from the second call on, the time that is left."""
        first: list[tuple[int, float]] = []

        def tell(step: int, steps: int, loss: float) -> None:
            text, now = f"{what}: step {step} of {steps}, loss {loss:.4f}", time.monotonic()
            first.append((step, now))
            if len(first) > 1 and step > first[0][0]:
                pace = (now - first[0][1]) / (step - first[0][0])
                text += f", {pace * (steps - step) / 60:.0f} min left"
            self.say(text)

        return tell
