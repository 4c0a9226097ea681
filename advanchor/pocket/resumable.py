"""Trainings that go on after a stop and end with the same weights as if there had been none.

What step n learns from is a function of the seed and of n alone. A checkpoint holds the weights, their average and the
optimizer's state.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advanchor.pocket.fit import Average

log = logging.getLogger(__name__)

SHARES = 2  # parts of a batch, each worked on by one thread

Found = tuple[float, Sequence[Tensor]]  # a loss and its gradients


class OtherRecipeError(ValueError):
    """A checkpoint that another recipe left: going on from it would give weights that no recipe makes."""


class OutOfTimeError(Exception):
    """A training that stopped at its time's end, with a checkpoint to go on from."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a pass goes; everything is counted in pictures, so that a seed decides the result."""

    pictures: int
    batch: int = 32
    lr: float = 2e-3
    warm: int = 5_000  # pictures until the learning rate is full
    held: int = 45_000  # ... and until it begins to fall
    first: int = 0  # number of the first step: what the steps of two passes draw differs
    checkpoint: int = 100  # steps between two checkpoints

    @property
    def steps(self) -> int:
        return self.pictures // self.batch

    def rate(self, step: int) -> float:
        """Learning rate of a step: a linear rise, a plateau, a half cosine down to a hundredth."""
        seen = (step + 1) * self.batch
        falling = max(0.0, (seen - self.held) / max(1, self.pictures - self.held))
        return self.lr * min(1.0, seen / self.warm) * (0.505 + 0.495 * math.cos(math.pi * falling))

    def rates(self, steps: int) -> tuple[dict[str, Any], list[float]]:
        """What the first `steps` steps depend on: recipes of different lengths agree until the rate falls."""
        return asdict(replace(self, pictures=0, held=0, checkpoint=0)), [self.rate(step) for step in range(steps)]


class Training:
    """Parameters, their average and AdamW; saved to a checkpoint and taken up from it."""

    def __init__(self, parameters: Sequence[Tensor], recipe: Recipe) -> None:
        self.parameters, self.recipe = parameters, recipe
        self.average = Average(self.parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.lr, betas=(0.9, 0.99), foreach=True)
        self.step = 0

    def advance(self, found: Sequence[Found]) -> float:
        """One step along the mean of some gradients; returns the mean loss."""
        for parameter, *shares in zip(self.parameters, *(gradients for _, gradients in found), strict=True):
            parameter.grad = sum(shares[1:], shares[0]) / len(found)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()
        self.step += 1
        return sum(loss for loss, _ in found) / len(found)

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "recipe": asdict(self.recipe),
            "parameters": self.parameters,
            "average": self.average.values,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def restore(self, path: Path) -> None:
        """Raises OtherRecipeError."""
        state = torch.load(path, weights_only=True)
        if type(self.recipe)(**state["recipe"]).rates(state["step"]) != self.recipe.rates(state["step"]):
            raise OtherRecipeError(f"{path} was left by another recipe ({state['recipe']}): name another folder")
        with torch.no_grad():
            torch._foreach_copy_([p.detach() for p in self.parameters], state["parameters"])
        self.average.values = state["average"]
        self.step = self.average.updates = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])

    def run(
        self,
        name: str,
        batch: Callable[[int], Sequence[Any]],
        gradients: Callable[[Any], Found],
        checkpoint: Path,
        out_of_time: Callable[[], bool] = lambda: False,
        threads: int = SHARES,
    ) -> None:
        """From the checkpoint, if there is one, to the recipe's end; the parameters are then the averaged ones.

        `batch(step)`: its parts. Each part is one thread's, from end to end: threads that met at every operation would
        wait for the slowest core all the time, if other programs run. Raises OutOfTimeError, OtherRecipeError.
        """
        if checkpoint.exists():
            self.restore(checkpoint)
        pool = ThreadPoolExecutor(threads)
        start, first, losses = time.monotonic(), self.step, []
        while self.step < self.recipe.steps:
            losses.append(self.advance(list(pool.map(gradients, batch(self.step)))))
            stopping = out_of_time()
            if stopping or self.step % self.recipe.checkpoint == 0:
                self.save(checkpoint)
            if stopping or len(losses) == 100 or self.step == self.recipe.steps:
                speed = (self.step - first) * self.recipe.batch / (time.monotonic() - start)
                mean = sum(losses) / len(losses)
                log.info("%s %d/%d loss %.4f, %.0f pictures/s", name, self.step, self.recipe.steps, mean, speed)
                losses.clear()
            if stopping and self.step < self.recipe.steps:
                raise OutOfTimeError(f"{name}: {self.step} of {self.recipe.steps} steps are done")
        self.average.copy_to_parameters()
