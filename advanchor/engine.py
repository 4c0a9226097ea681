"""What a method needs of whatever trains the student: one small interface, and its plain PyTorch form."""

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class Engine(Protocol):
    """Holds the UNet with its delta; made once per process, reset between tasks."""

    rank: int
    world_size: int
    module: nn.Module

    def reset(self, lr: float) -> None:
        """A zero delta and a fresh optimizer with learning rate `lr`."""
        ...

    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Set the delta; the optimizer starts afresh."""
        ...

    def backward(self, loss: Tensor) -> None: ...

    def step(self) -> None:
        """One step of the optimizer, on gradients averaged over the ranks; then no gradients."""
        ...

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over the ranks, the same bits on every rank."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all ranks, joined in the order of the ranks."""
        ...

    def export(self) -> dict[str, Tensor]:
        """The delta on the CPU in float32, by name."""
        ...


class TorchEngine:
    """One process, plain PyTorch: Adam without weight decay, in float32."""

    rank, world_size = 0, 1

    def __init__(self, module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
        self.module = module
        self.parameters = parameters
        self.optimizer = torch.optim.Adam(parameters.values())

    def reset(self, lr: float) -> None:
        self.load({name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()})
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def load(self, delta: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(delta[name])
                parameter.grad = None
        self.optimizer.state.clear()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def mean(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def export(self) -> dict[str, Tensor]:
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}


def shard(size: int, rank: int, world_size: int) -> slice:
    """This rank's rows of a global batch. ValueError if the batch does not divide by the ranks."""
    if size % world_size:
        raise ValueError(f"a batch of {size} does not divide by {world_size} ranks")
    part = size // world_size
    return slice(rank * part, (rank + 1) * part)


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that depends on all parts and on nothing else."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
