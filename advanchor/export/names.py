"""Layers under sd-scripts' (kohya's) names, for the bases of which a loader that reads them can be asked."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.export.lora import ExportError
from advanchor.export.original import unet_name, unet_places

Factors = Mapping[str, tuple[Tensor, Tensor]]  # by the layer's name: A (r, in) and B (out, r)
CONTEXT = "context_embedder"
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")


def kohya(backbone: nn.Module, factors: Factors) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B by the stem of their names: all before ".lora_down.weight". ExportError where no table is known."""
    kind = type(backbone).__name__
    if kind not in TABLES:
        raise ExportError(f"no loader is known that reads kohya's names for a {kind}: use --format lora")
    return {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in TABLES[kind](backbone, factors).items()}


def as_they_are(_: nn.Module, factors: Factors) -> Factors:
    return factors


def unet(backbone: Any, factors: Factors) -> Factors:
    """sd-scripts trains SD 1.x and 2.x under diffusers' names, SDXL under Stability's."""
    if backbone.config.addition_embed_type != "text_time":
        return factors
    places = unet_places(backbone)
    return {unet_name(name, places): pair for name, pair in factors.items()}


def flux2(_: nn.Module, factors: Factors) -> Factors:
    """Black Forest Labs' names; keys and values of a block's text are part of one layer."""
    found = {"txt_in": factors[CONTEXT]} if CONTEXT in factors else {}
    blocks = sorted({int(name.split(".")[1]) for name in factors if name.startswith("transformer_blocks.")})
    return found | {f"double_blocks.{i}.txt_attn.qkv": fused(factors, f"transformer_blocks.{i}.attn") for i in blocks}


def flux(backbone: nn.Module, factors: Factors) -> Factors:
    """The same, but diffusers drops what stands outside of the blocks."""
    if CONTEXT in factors or any(name.startswith("time_text_embed") for name in factors):
        raise ExportError(
            "diffusers drops kohya's names of FLUX.1's txt_in and vector_in, so that the readers' edit would be lost: "
            "use --format lora"
        )
    return flux2(backbone, factors)


def fused(factors: Factors, place: str) -> tuple[Tensor, Tensor]:
    """The factors of q, k and v below one another, each with columns of B of its own; those of q are zero."""
    pairs = [factors.get(f"{place}.{leaf}") for leaf in ADDED]
    a, b = zip(*(pair for pair in pairs if pair), strict=True)
    missing = [torch.zeros(len(b[0]), 0)] * sum(pair is None for pair in pairs)
    return torch.cat(a), torch.block_diag(*missing, *b)


TABLES: dict[str, Callable[[Any, Factors], Factors]] = {
    "UNet2DConditionModel": unet,
    "FluxTransformer2DModel": flux,
    "Flux2Transformer2DModel": flux2,
    "QwenImageTransformer2DModel": as_they_are,
    "ZImageTransformer2DModel": as_they_are,
}
