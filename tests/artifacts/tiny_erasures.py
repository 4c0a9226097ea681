"""Random erasures of a tiny pipeline, and what its weights are."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from advanchor.artifacts import delta_to_bytes
from advanchor.fusion.neurons import mlp_tensors

ENDINGS = ("attn2.to_k.weight", "attn2.to_v.weight")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=dtype)


def state(pipeline: Any) -> dict[str, Tensor]:
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    return {f"{part}.{name}": t.clone() for part, own in parts.items() for name, t in own.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def readers(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters() if name.endswith(ENDINGS)}


def delta_of(pipeline: Any, path: Path, seed: int, size: float = 0.1) -> Path:
    """A random delta that was made from what the pipeline is now, as `advanchor.erase` would write it."""
    generator, base = torch.Generator().manual_seed(seed), readers(pipeline.unet)
    delta = {name: size * torch.randn(tensor.shape, generator=generator) for name, tensor in base.items()}
    path.write_bytes(delta_to_bytes(delta, base, {"base": "tiny", "seed": seed}))
    return path


def neurons_of(pipeline: Any, path: Path, seed: int = 0, count: int = 4) -> Path:
    """Random neurons for what the text encoder is now."""
    generator, base = torch.Generator().manual_seed(seed), mlp_tensors(pipeline.text_encoder)
    grown = {
        name: torch.randn(*([count] if name.endswith("fc1.bias") else [count, 32]), generator=generator)
        for name in base
    }
    grown = {name: tensor.T.contiguous() if "fc2" in name else tensor for name, tensor in grown.items()}
    path.write_bytes(delta_to_bytes(grown, base, {"seed": seed}))
    return path
