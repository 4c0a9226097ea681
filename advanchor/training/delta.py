"""A switchable change of weights: one backbone is both teacher (delta off) and student (delta on).

The change may be stacked: a backbone with K slots carries K concepts' deltas at once and trains them in one batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advanchor.models.readers import linear_names, reader_group

Switch = tuple[float, slice, Tensor | None]  # of a layer: scale, slots that are on, projection


class DeltaLinear(nn.Module):
    """y = W x + b + scale * (dW_k P_k x + db_k), the second part only while the delta is on; k is the row's slot.

    P, where there is a projection, keeps the change away from retained prompts (Delta.projected). The delta's tensors
    belong to this module, not to a child, so that ZeRO-3 gathers them when it is called.
    """

    def __init__(self, base: nn.Linear, slots: int = 1, group: str | None = None) -> None:
        """group: of readers, None of another Linear. A reader's bias has no delta: P cannot cover it."""
        super().__init__()
        self.base, self.group = base.requires_grad_(False), group
        self.in_features, self.out_features = base.in_features, base.out_features  # which pipelines ask for
        shape, device = (slots, base.out_features, base.in_features), base.weight.device
        self.delta_weight = nn.Parameter(torch.zeros(shape, device=device))  # (slots, out, in), float32
        changed = base.bias is not None and group is None
        self.delta_bias = nn.Parameter(torch.zeros(shape[:2], device=device)) if changed else None
        self.projection: Tensor | None = None  # P (slots, in, in)
        self.scale = 0.0
        self.speaking = slice(None)  # the slots that are on

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        return y if self.scale == 0 else y + self.scale * self.change(x)

    def change(self, x: Tensor) -> Tensor:
        """dW P x + db (rows, ..., out); the rows lie slot by slot, equally many for each slot that is on."""
        weight = self.delta_weight[self.speaking].to(x.dtype)
        if self.projection is not None:
            own = self.projection[self.speaking].to(x.dtype)
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
    """All DeltaLinears of a backbone. Made once per process; between tasks it is zeroed in place."""

    def __init__(self, backbone: nn.Module, trained_weights: str, slots: int = 1) -> None:
        """Wrap the Linears that `trained_weights` (models.readers) names and freeze everything else.

        slots: how many concepts the backbone can carry at once. ValueError for a setting that this backbone does not
        have.
        """
        self.trained_weights, self.slots = trained_weights, slots
        backbone.requires_grad_(False)
        self.backbone, kind = backbone, type(backbone).__name__
        self.layers: dict[str, DeltaLinear] = {}
        for name in linear_names(backbone, trained_weights):
            linear, group = backbone.get_submodule(name), reader_group(kind, name)
            self.layers[name] = DeltaLinear(linear, slots, group)  # type: ignore[arg-type] # Linears by name
            replace_module(backbone, name, self.layers[name])

    def detach(self) -> None:
        """Put the plain Linears back."""
        for name, layer in self.layers.items():
            replace_module(self.backbone, name, layer.base)

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
            if layer.delta_bias is not None:
                named[f"{name}.bias"] = layer.base.bias
        return named

    @contextmanager
    def on(self, scale: float = 1.0, slots: int | slice = slice(None)) -> Iterator[None]:
        """Inside this block the module is the student; outside it, the teacher, bit for bit.

        `slots`: one slot for all rows, or several: then the rows of a batch lie slot by slot, equally many for each.
        """
        speaking = slice(slots, slots + 1) if isinstance(slots, int) else slots
        if not range(self.slots)[speaking]:
            raise IndexError(f"slots {slots!r} of a delta that has {self.slots}")
        with self.restored():
            for layer in self.layers.values():
                layer.scale, layer.speaking = scale, speaking
            yield

    @contextmanager
    def restored(self) -> Iterator[None]:
        """After this block every layer is switched as it was before it."""
        before = self.switches()
        try:
            yield
        finally:
            self.switch(before)

    def as_it_is(self) -> AbstractContextManager[None]:
        """For later: a context in which every layer is switched as it is at this call."""
        return self.again(self.switches())

    @contextmanager
    def again(self, switches: Sequence[Switch]) -> Iterator[None]:
        with self.restored():
            self.switch(switches)
            yield

    def switches(self) -> list[Switch]:
        return [(layer.scale, layer.speaking, layer.projection) for layer in self.layers.values()]

    def switch(self, switches: Sequence[Switch]) -> None:
        for layer, (scale, speaking, projection) in zip(self.layers.values(), switches, strict=True):
            layer.scale, layer.speaking, layer.projection = scale, speaking, projection

    @contextmanager
    def projected(self, p: Tensor | Mapping[str, Tensor]) -> Iterator[None]:
        """Inside this block the change is dW P instead of dW in every reader.

        P (slots, D, D): by the readers' group, or that of the group "text" alone.
        """
        groups = {"text": p} if isinstance(p, Tensor) else p
        try:
            for layer in self.layers.values():
                layer.projection = groups.get(layer.group or "")
            yield
        finally:
            for layer in self.layers.values():
                layer.projection = None

    def group_of(self, name: str) -> str | None:
        """The readers' group of a tensor's layer; None of what is no reader's weight."""
        layer = self.layers[name.rpartition(".")[0]]
        return layer.group if name.endswith(".weight") else None

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
