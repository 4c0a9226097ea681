"""A change of any weights of a backbone, for what trains more than the Linears that read a prompt.

`Delta` (delta.py) wraps Linears and can carry many concepts at once. Here every trained weight W0, of whatever layer,
has one dW, and a forward pass runs on W0 + dW: the backbone itself stays the teacher, bit for bit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from advanchor.models.readers import READERS_ONLY, linear_names

DENOISER = "denoiser"  # of `trained_weights`: every weight
TRAINED = ("readers", "cross_attention", DENOISER)


def weight_names(backbone: nn.Module, trained_weights: str) -> list[str]:
    """Names of the parameters that a value of TRAINED stands for. ValueError for what this backbone does not have."""
    if trained_weights == DENOISER:
        return [name for name, parameter in backbone.named_parameters() if parameter.is_floating_point()]
    endings = ("weight",) if trained_weights in READERS_ONLY else ("weight", "bias")
    layers = linear_names(backbone, trained_weights)
    wanted = {f"{layer}.{ending}" for layer in layers for ending in endings}
    return [name for name, _ in backbone.named_parameters() if name in wanted]


class Student(nn.Module):
    """The backbone with W0 + dW in the place of W0; it is called as the backbone is."""

    def __init__(self, backbone: nn.Module, trained_weights: str) -> None:
        """dW is float32 and 0 at first, whatever the backbone computes in."""
        super().__init__()
        self.backbone = backbone
        self.names = weight_names(backbone, trained_weights)
        before = dict(backbone.named_parameters())
        self.changes = nn.ParameterList(
            torch.zeros(before[name].shape, dtype=torch.float32, device=before[name].device) for name in self.names
        )

    def weights(self) -> dict[str, Tensor]:
        """W0 + dW by name, summed in float32, in the backbone's own precision."""
        before = dict(self.backbone.named_parameters())
        pairs = zip(self.names, self.changes, strict=True)
        return {name: (before[name].detach().float() + dw).to(before[name].dtype) for name, dw in pairs}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return functional_call(self.backbone, self.weights(), inputs, named)

    @torch.no_grad()
    def start(self, delta: Mapping[str, Tensor]) -> None:
        """Begin from a delta, as far as its weights are trained here."""
        for name, dw in zip(self.names, self.changes, strict=True):
            if name in delta:
                dw.copy_(delta[name])

    def base_tensors(self) -> dict[str, Tensor]:
        """W0 by name."""
        return {name: self.backbone.get_parameter(name).detach() for name in self.names}


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a backbone, whose outputs a student is to share with its teacher."""
    lists = {name for name, part in backbone.named_modules() if isinstance(part, nn.ModuleList) and is_trunk(name)}
    return [part for name, part in backbone.named_modules() if name.rpartition(".")[0] in lists]


def is_trunk(name: str) -> bool:
    return name == "layers" or name.endswith("transformer_blocks")


@contextmanager
def watched(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """A list that fills with what the blocks give, one after another; of a pair, with the latents' part."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(output[-1] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in blocks(backbone)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
