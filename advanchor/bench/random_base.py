"""A base of published shape with random weights, made where it is to compute, in the type that it computes in.

Its prompts are rows of noise, one per token, in the shape that its text encoders would give: those run once per prompt
and leave the device before anything is trained. It has no VAE.
"""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTokenizer

from advanchor import models
from advanchor.bench import published
from advanchor.bench.published import PUBLISHED, Published
from advanchor.bench.shapes import SCHEDULER
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder

STD = 0.02
TOY_TOKENS = 16
VARIANCE_PRESERVING = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "PixArtSigmaPipeline")


class Noise(nn.Module):
    """Stands where a base has text encoders."""

    def __init__(self, words: int, width: int, pooled: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(words, width)
        self.pooled = nn.Linear(width, max(pooled, 1))

    @property
    def device(self) -> torch.device:
        return self.pooled.weight.device


@cache
def random_kind(kind: type[Base], tokens: int, pooled: bool, masked: bool) -> type[Base]:
    """A class of bases with Noise for its text encoders."""

    class Random(kind):
        def make_encoders(self) -> list[TextEncoder]:
            return [TextEncoder("text_encoder", self.pipeline.text_encoder, self.pipeline.tokenizer, tokens)]

        def unconditional(self) -> Conditioning:
            return self.encode([""])

        def embed(self, texts: Sequence[str]) -> Conditioning:
            (encoder,) = self.encoders
            told = encoder.tokens(texts)
            embeds = encoder.module.tokens(told.input_ids).float()
            added: dict[str, Tensor] = {"mask": told.attention_mask} if masked else {}
            if pooled:
                added["pooled"] = encoder.module.pooled(embeds.mean(1).to(encoder.module.pooled.weight.dtype))
            if sizes := getattr(self, "time_ids", None):  # SDXL's
                added["time_ids"] = sizes(len(texts))
            return Conditioning(embeds, added)

    return Random


def materialised(module: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """Weights on the meta device become random ones on this one; on the meta device they stay."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                own = torch.empty(parameter.shape, device=device, dtype=dtype)
                own = own if device == "meta" else own.normal_(0, STD)
                part._parameters[name] = nn.Parameter(own, requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device, dtype if buffer.dtype is torch.float32 else buffer.dtype)
    return module


def scheduler(own: Published) -> Any:
    if own.pipeline in VARIANCE_PRESERVING:
        return DDIMScheduler(**SCHEDULER)
    if own.pipeline == "SanaPipeline":
        flow: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
        return DPMSolverMultistepScheduler(**flow)
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def pooled_width(own: Published, config: Any) -> int:
    if not own.pooled:
        return 0
    return config[own.pooled] - 6 * config.get("addition_time_embed_dim", 0)


def random_base(name: str, device: str, dtype: torch.dtype, *, toy: bool = False) -> Base:
    """A base of PUBLISHED; its latents are those of pictures of 1024 pixels, a toy's of eight latents a side."""
    torch.manual_seed(0)
    own, side = PUBLISHED[name], 1024 // PUBLISHED[name].scale
    with init_empty_weights(include_buffers=False):
        module: Any = published.backbone(name, toy=toy)
    tokenizer = CLIPTokenizer.from_pretrained(models.built_in()["pocket"] / "tokenizer")
    pooled = pooled_width(own, module.config)
    kind = models.adapter_class(own.pipeline)
    vae = nn.Linear(1, 1).to(device)
    vae.config = SimpleNamespace(sample_size=1024)  # type: ignore[assignment]
    pipeline = SimpleNamespace(
        vae=vae,
        text_encoder=materialised(Noise(len(tokenizer), module.config[own.width], pooled), device, torch.float32),
        tokenizer=tokenizer,
        scheduler=scheduler(own),
        vae_scale_factor=min(own.scale, 8),
        config={},
        **{kind.backbone_name: materialised(module, device, dtype)},
    )
    tokens = TOY_TOKENS if toy else own.tokens
    base = random_kind(kind, tokens, bool(pooled), own.masked)(pipeline, name=f"random {name}", digest=name)
    resize(base, 8 if toy else side)
    return base


def resize(base: Base, side: int) -> None:
    """Let latents have another side than the configuration's."""
    base.latent_shape = (base.latent_shape[0], side, side)


def told(base: Base) -> Conditioning:
    """One row of the shapes that `encode` gives, on the meta device."""
    (encoder,), module = base.encoders, base.pipeline.text_encoder
    own = PUBLISHED[base.digest]
    with torch.device("meta"):
        added: dict[str, Tensor] = {}
        if own.masked:
            added["mask"] = torch.ones(1, encoder.length, dtype=torch.long)
        if own.pooled:
            added["pooled"] = torch.empty(1, module.pooled.out_features)
        if hasattr(base, "time_ids"):
            added["time_ids"] = torch.empty(1, 6)
        return Conditioning(torch.empty(1, encoder.length, module.tokens.embedding_dim), added)
