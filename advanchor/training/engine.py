"""What a method needs of whatever trains the student: one small interface, and its plain PyTorch form."""

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class Engine(Protocol):
    """Holds the backbone with its delta; made once per process, reset between tasks."""

    rank: int
    world_size: int
    module: nn.Module

    def reset(self, lr: float) -> None:
        """A zero delta in every slot and a fresh optimizer with learning rate `lr`."""
        ...

    def load(self, delta: Mapping[str, Tensor], slot: int = 0) -> None:
        """Set one slot's delta, without the slots' dimension; the optimizer starts afresh."""
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
        """The delta of every slot on the CPU in float32, by name: (slots, ...)."""
        ...


class TorchEngine:
    """One process, plain PyTorch: Adam without weight decay, in float32."""

    rank, world_size = 0, 1

    def __init__(self, module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
        self.module = module
        self.parameters = parameters
        self.optimizer = torch.optim.Adam(parameters.values())

    def reset(self, lr: float) -> None:
        with torch.no_grad():
            for parameter in self.parameters.values():
                parameter.zero_()
        self.restart_optimizer()
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def load(self, delta: Mapping[str, Tensor], slot: int = 0) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter[slot].copy_(delta[name])
        self.restart_optimizer()

    def restart_optimizer(self) -> None:
        self.optimizer.zero_grad()
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
