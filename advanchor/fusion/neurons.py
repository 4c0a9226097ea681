"""Further neurons in the last MLP of a CLIP text encoder (ways/neurons.py says what they are for)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.models.base import Base
from advanchor.models.text import Prompt

UP, DOWN = "fc1", "fc2"


class TextEncoderError(ValueError):
    """A text encoder that is not made of CLIP's layers."""


def text_encoder(base: Base) -> Any:
    """The text encoder that neurons are put into. Raises TextEncoderError for a base that they cannot serve."""
    if len(base.encoders) == 1 and hasattr(base.backbone.config, "cross_attention_dim") and not base.encoders[0].lower:
        return base.encoders[0].module
    names = " and ".join(type(encoder.module).__name__ for encoder in base.encoders)
    raise TextEncoderError(
        f"{base.name!r} has {names}; neurons are fused into the last layer of a single CLIP text encoder, whose MLPs "
        "have a bias for a threshold. Use closed_form, anchor_edit or task_arithmetic"
    )


def clip_parts(text_encoder: nn.Module) -> tuple[str, nn.ModuleList, nn.LayerNorm]:
    """The name of a CLIP text encoder's layers, the layers, and its final layer norm. Raises TextEncoderError."""
    for prefix in ("", "text_model."):
        try:
            layers = text_encoder.get_submodule(f"{prefix}encoder.layers")
            return f"{prefix}encoder.layers", layers, text_encoder.get_submodule(f"{prefix}final_layer_norm")  # type: ignore[return-value]
        except AttributeError:
            continue
    raise TextEncoderError(f"{type(text_encoder).__name__} has no layers of CLIP's text encoder, which neurons need")


@torch.no_grad()
def hidden_states(base: Base, prompts: Sequence[str | Prompt]) -> tuple[Tensor, Tensor]:
    """(N, L, D) twice: what the last MLP is given, and what the final layer norm is given."""
    _, layers, norm = clip_parts(text_encoder(base))
    given: dict[str, list[Tensor]] = {"mlp": [], "norm": []}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, arguments: given[name].append(arguments[0].float().cpu())

    hooks = [
        layers[-1].mlp.register_forward_pre_hook(keep("mlp")),  # type: ignore[union-attr, operator]
        norm.register_forward_pre_hook(keep("norm")),
    ]
    try:
        for i in range(0, len(prompts), 256):
            base.encode(prompts[i : i + 256])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(given["mlp"]), torch.cat(given["norm"])


def mlp_names(text_encoder: nn.Module) -> dict[str, str]:
    """Full names of the last MLP's tensors that grow, by their short ones."""
    prefix, layers, _ = clip_parts(text_encoder)
    return {name: f"{prefix}.{len(layers) - 1}.mlp.{name}" for name in (f"{UP}.weight", f"{UP}.bias", f"{DOWN}.weight")}


def mlp_tensors(text_encoder: nn.Module) -> dict[str, Tensor]:
    """The last MLP's tensors that grow, by their full names."""
    return {name: text_encoder.get_parameter(name).detach().cpu() for name in mlp_names(text_encoder).values()}


@torch.no_grad()
def grow(text_encoder: Any, neurons: Mapping[str, Tensor]) -> None:
    """Append neurons to the last MLP, and silent ones to all others: the configuration knows one width for all."""
    prefix, layers, _ = clip_parts(text_encoder)
    added = len(neurons[f"{prefix}.{len(layers) - 1}.mlp.{UP}.bias"])
    for number, layer in enumerate(layers):
        up, down = (getattr(layer.mlp, name) for name in (UP, DOWN))
        name = f"{prefix}.{number}.mlp"
        rows = neurons.get(f"{name}.{UP}.weight", torch.zeros(added, up.in_features))
        bias = neurons.get(f"{name}.{UP}.bias", torch.zeros(added))
        columns = neurons.get(f"{name}.{DOWN}.weight", torch.zeros(down.out_features, added))
        setattr(
            layer.mlp, UP, linear(torch.cat([up.weight, rows.to(up.weight)]), torch.cat([up.bias, bias.to(up.bias)]))
        )
        setattr(layer.mlp, DOWN, linear(torch.cat([down.weight, columns.to(down.weight)], 1), down.bias))
    text_encoder.config.intermediate_size += added


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A frozen layer of these weights (d_out, d_in)."""
    made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.weight, made.bias = (nn.Parameter(tensor.detach(), requires_grad=False) for tensor in (weight, bias))
    return made


@contextmanager
def grown(text_encoder: Any, neurons: Mapping[str, Tensor]) -> Iterator[None]:
    """The text encoder has these neurons inside this block, and is as it was after it."""
    _, layers, _ = clip_parts(text_encoder)
    before = [(layer.mlp, getattr(layer.mlp, UP), getattr(layer.mlp, DOWN)) for layer in layers]
    width = text_encoder.config.intermediate_size
    grow(text_encoder, neurons)
    try:
        yield
    finally:
        for mlp, up, down in before:
            setattr(mlp, UP, up)
            setattr(mlp, DOWN, down)
        text_encoder.config.intermediate_size = width
