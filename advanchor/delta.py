"""A switchable change of weights: one backbone is both teacher (delta off) and student (delta on).

The change may be stacked: a backbone with K slots carries K concepts' deltas at once and trains them in one batch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TRAINED_WEIGHTS: dict[str, tuple[str, ...]] = {
    "cross_attention": ("to_q", "to_k", "to_v", "to_out.0"),  # every parameter with "attn2" in its name
    "cross_attention_kv": ("to_k", "to_v"),  # what can be fused in closed form
}


class DeltaLinear(nn.Module):
    """y = W x + b + scale * (dW_k P_k x + db_k), the second part only while the delta is on; k is the row's slot.

    P, where there is a guard, keeps the change away from what it is not to touch (Delta.guarded). The delta's tensors
    belong to this module, not to a child, so that ZeRO-3 gathers them when it is called.
    """

    def __init__(self, base: nn.Linear, slots: int = 1) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        shape, device = (slots, base.out_features, base.in_features), base.weight.device
        self.delta_weight = nn.Parameter(torch.zeros(shape, device=device))  # (slots, out, in), float32
        self.delta_bias = None if base.bias is None else nn.Parameter(torch.zeros(shape[:2], device=device))
        self.guard: Tensor | None = None  # P (slots, in, in)
        self.scale = 0.0
        self.speaking = slice(None)  # the slots that speak

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return y if self.scale == 0 else y + self.scale * self.change(x)

    def change(self, x: Tensor) -> Tensor:
        """dW P x + db (rows, ..., out); the rows lie slot by slot, equally many for each slot that speaks."""
        weight = self.delta_weight[self.speaking].to(x.dtype)
        if self.guard is not None:
            own = self.guard[self.speaking].to(x.dtype)
            x = (x.reshape(len(own), -1, x.shape[-1]) @ own.transpose(1, 2)).view_as(x)
        bias = None if self.delta_bias is None else self.delta_bias[self.speaking].to(x.dtype)
        if len(weight) == 1:
            return F.linear(x, weight.squeeze(0), None if bias is None else bias.squeeze(0))
        grouped = x.reshape(len(weight), -1, x.shape[-1])  # (slots, their rows, in)
        change = grouped @ weight.transpose(1, 2)
        if bias is not None:
            change = change + bias.unsqueeze(1)
        return change.reshape(*x.shape[:-1], -1)


class Delta:
    """All DeltaLinears of a UNet. Made once per process; between tasks it is zeroed in place."""

    def __init__(self, unet: nn.Module, trained_weights: str, slots: int = 1) -> None:
        """Wrap the Linears that `trained_weights` (a key of TRAINED_WEIGHTS) names and freeze everything else.

        `slots` is how many concepts the backbone can carry at once. ValueError for an unknown setting.
        """
        self.trained_weights, self.slots = trained_weights, slots
        unet.requires_grad_(False)
        self.unet = unet
        self.layers: dict[str, DeltaLinear] = {}
        for name in linear_names(unet, trained_weights):
            self.layers[name] = DeltaLinear(unet.get_submodule(name), slots)  # type: ignore[arg-type] # Linears by name
            replace_module(unet, name, self.layers[name])

    def detach(self) -> None:
        """Put the plain Linears back."""
        for name, layer in self.layers.items():
            replace_module(self.unet, name, layer.base)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Stacked (slots, ...), under the names that the base's tensors have: "<layer>.weight", "<layer>.bias"."""
        named = {}
        for name, layer in self.layers.items():
            named[f"{name}.weight"] = layer.delta_weight
            if layer.delta_bias is not None:
                named[f"{name}.bias"] = layer.delta_bias
        return named

    def base_tensors(self) -> dict[str, Tensor]:
        named = {}
        for name, layer in self.layers.items():
            named[f"{name}.weight"] = layer.base.weight
            if layer.base.bias is not None:
                named[f"{name}.bias"] = layer.base.bias
        return named

    @contextmanager
    def on(self, scale: float = 1.0, slots: int | slice = slice(None)) -> Iterator[None]:
        """The student speaks inside this block; outside it the module is the teacher, bit for bit.

        `slots`: one slot for all rows, or several: then the rows of a batch lie slot by slot, equally many for each.
        """
        speaking = slice(slots, slots + 1) if isinstance(slots, int) else slots
        if not range(self.slots)[speaking]:
            raise IndexError(f"slots {slots!r} of a delta that has {self.slots}")
        before = [(layer.scale, layer.speaking) for layer in self.layers.values()]
        try:
            for layer in self.layers.values():
                layer.scale, layer.speaking = scale, speaking
            yield
        finally:
            for layer, (was_scale, was_speaking) in zip(self.layers.values(), before, strict=True):
                layer.scale, layer.speaking = was_scale, was_speaking

    @contextmanager
    def guarded(self, guard: Tensor | None) -> Iterator[None]:
        """Inside this block the change is dW P instead of dW, P (slots, D, D), in every layer that reads embeddings."""
        readers = [layer for name, layer in self.layers.items() if name.endswith(("to_k", "to_v"))]
        try:
            for layer in readers:
                layer.guard = guard
            yield
        finally:
            for layer in readers:
                layer.guard = None

    def checked(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`tensors`, if they are exactly this delta's; ValueError names what is missing or does not belong here."""
        names = self.named_parameters().keys()
        if missing := names - tensors.keys():
            raise ValueError(f"the delta lacks {len(missing)} tensors, for example {min(missing)!r}")
        if unexpected := tensors.keys() - names:
            raise ValueError(
                f"the delta has {len(unexpected)} tensors that {self.trained_weights} does not train, "
                f"for example {min(unexpected)!r}"
            )
        return tensors


def replace_module(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    root.get_submodule(parent).register_module(leaf, module)


def linear_names(unet: nn.Module, trained_weights: str) -> list[str]:
    """Names of the cross-attention Linears that a setting trains, in the UNet's order."""
    if trained_weights not in TRAINED_WEIGHTS:
        raise ValueError(f"trained_weights {trained_weights!r} is not one of {', '.join(TRAINED_WEIGHTS)}")
    endings = tuple(f".attn2.{leaf}" for leaf in TRAINED_WEIGHTS[trained_weights])
    return [name for name, module in unet.named_modules() if isinstance(module, nn.Linear) and name.endswith(endings)]
