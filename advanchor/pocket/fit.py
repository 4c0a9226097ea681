"""Fits parameters to a loss, and goes on where it was stopped: the one loop behind every part of the gallery."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

EVERY = 100  # steps between two checkpoints


class Average:
    """Exponential moving average of parameters (EMA), with a short memory at the start."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.values = [parameter.detach().clone() for parameter in parameters]
        self.updates = 0

    def update(self) -> None:
        self.updates += 1
        decay = min(0.999, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            torch._foreach_lerp_(self.values, [parameter.detach() for parameter in self.parameters], 1 - decay)

    def copy_to_parameters(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_([parameter.detach() for parameter in self.parameters], self.values)


@dataclass
class Checkpoint:
    """All that the next step depends on, in one file: weights, their average, the optimizer and both random states."""

    path: Path
    average: Average
    rng: random.Random

    def save(self, step: int, **states: Any) -> None:
        state = states | {
            "step": step,
            "parameters": self.average.parameters,
            "average": self.average.values,
            "updates": self.average.updates,
            "random": self.rng.getstate(),
            "torch": torch.get_rng_state(),
        }
        torch.save(state, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").replace(self.path)

    def restore(self) -> dict[str, Any] | None:
        """Puts everything back but the optimizer, whose states are returned; None if there is no file yet."""
        if not self.path.exists():
            return None
        state = torch.load(self.path, weights_only=True)
        with torch.no_grad():
            torch._foreach_copy_([p.detach() for p in self.average.parameters], state["parameters"])
        self.average.values, self.average.updates = state["average"], state["updates"]
        self.rng.setstate(state["random"])
        torch.set_rng_state(state["torch"])
        return state


def fit(
    name: str,
    parameters: Sequence[Tensor],
    steps: int,
    lr: float,
    step_loss: Callable[[int], Tensor],
    checkpoint: Checkpoint | None = None,
) -> None:
    """AdamW with a one-cycle schedule on `step_loss(step)`.

    With a checkpoint, a training that was stopped goes on from it and ends with the same weights.
    """
    optimizer = torch.optim.AdamW(parameters, lr=lr, foreach=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.08)
    first = 0
    if checkpoint and (state := checkpoint.restore()):
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    start = time.monotonic()
    for step in range(first, steps):
        loss = step_loss(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            log.info("%s %d/%d loss %.4f, %.0f s", name, step, steps, loss.item(), time.monotonic() - start)
        if checkpoint and (step + 1) % EVERY == 0:
            checkpoint.save(step + 1, optimizer=optimizer.state_dict(), schedule=schedule.state_dict())
