"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) of a backbone whose delta is switched on and off.

A block's activations are made again during the backward pass, which may come after `Delta.on` has ended: the
recomputation runs with the delta as it was in the forward pass.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.utils.checkpoint import checkpoint

from advanchor.models.base import Base
from advanchor.training.delta import Delta


def checkpointed(base: Base, delta: Delta) -> None:
    """Let every block of a base's backbone keep its input only. ValueError for a backbone that cannot."""
    backbone = base.backbone
    if not getattr(backbone, "_supports_gradient_checkpointing", False):
        raise ValueError(f"a {type(backbone).__name__} has no gradient checkpointing")

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), delta.as_it_is()

    def run(block: Callable, *inputs: Any) -> Any:
        return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)

    backbone.enable_gradient_checkpointing(run)
