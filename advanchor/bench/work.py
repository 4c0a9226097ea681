"""How much arithmetic a forward and each kind of backward pass is, counted on tensors without data."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from advanchor import models
from advanchor.bench import shapes
from advanchor.training.delta import Delta


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one row."""

    forward: float
    to_embeddings: float  # backward through the frozen teacher to the embeddings
    to_all_weights: float  # the same through an open UNet, as both are in the authors' script
    to_all_weights_checkpointed: float  # with the forward that is made again
    to_delta: float  # backward of the student with a delta

    def equivalents(self, rows: dict[str, float]) -> float:
        """Rows by kind, with those of their forwards under "forward", as forwards of one row."""
        return sum(count * getattr(self, kind) for kind, count in rows.items()) / self.forward


def empty_unet(model: str, side: int | None) -> nn.Module:
    """The model's UNet without data."""
    with torch.device("meta"):
        if model in shapes.UNETS:
            return shapes.unet(model, side)
        config: Any = UNet2DConditionModel.load_config(models.resolve(model) / "unet")
        unet: Any = UNet2DConditionModel.from_config(config)
        return unet.eval()


def count(model: str, side: int | None = None) -> Work:
    """Of pocket, sd14 or sdxl, all of the cross-attention trained; `side`: of the latents, instead of its own."""
    frozen = empty_unet(model, side).requires_grad_(False)
    forward = operations(frozen, embeddings=False, backward=False)
    to_embeddings = operations(frozen) - forward
    delta = Delta(frozen, "cross_attention")
    with delta.on():
        spoken = operations(frozen, embeddings=False, backward=False)
        to_delta = operations(frozen, embeddings=False) - spoken
    delta.detach()
    return Work(
        forward=forward,
        to_embeddings=to_embeddings,
        to_all_weights=operations(frozen.requires_grad_(True)) - forward,
        to_all_weights_checkpointed=operations(checkpointed(frozen)) - forward,
        to_delta=to_delta + spoken - forward,
    )


def checkpointed(unet: nn.Module) -> nn.Module:
    unet.enable_gradient_checkpointing()  # type: ignore[operator]
    return unet


def operations(unet: nn.Module, *, embeddings: bool = True, backward: bool = True) -> float:
    """Of a forward of one row, and of the backward pass if asked; `embeddings`: they want a gradient, too."""
    config: Any = unet.config
    side, length = config.sample_size, shapes.LENGTH
    embeds = torch.empty(1, length, config.cross_attention_dim, device="meta", requires_grad=embeddings)
    noisy, timesteps = torch.empty(1, config.in_channels, side, side, device="meta"), torch.empty(1, device="meta")
    added = None
    if config.addition_embed_type == "text_time":
        added = {"text_embeds": torch.empty(1, 1280, device="meta"), "time_ids": torch.empty(1, 6, device="meta")}
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        eps = unet(noisy, timesteps, encoder_hidden_states=embeds, added_cond_kwargs=added).sample
        if backward:
            eps.sum().backward()
    return float(counter.get_total_flops())
