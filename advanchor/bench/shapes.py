"""Stable Diffusion 1.4 and SDXL in their exact shapes, with random weights: for measuring time and memory only.

Configurations: the published unet/config.json and text_encoder/config.json of CompVis/stable-diffusion-v1-4 and
stabilityai/stable-diffusion-xl-base-1.0. Nothing is downloaded.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from advanchor import models
from advanchor.bench.published import PUBLISHED
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.sdxl import StableDiffusionXL
from advanchor.models.stable_diffusion import StableDiffusion

UNETS = {"sd14": PUBLISHED["SD 1.4"].config, "sdxl": PUBLISHED["SDXL"].config}
LENGTH = 77  # tokens of a prompt
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def unet(name: str, side: int | None = None) -> UNet2DConditionModel:
    """A UNet of sd14 or sdxl; `side`: of its latents, instead of the published size."""
    config: dict[str, Any] = {**UNETS[name], **({"sample_size": side} if side else {})}
    return UNet2DConditionModel(**config).eval()


def text_encoder() -> CLIPTextModel:
    """CLIP ViT-L/14's, as in Stable Diffusion 1.4."""
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=LENGTH,
        projection_dim=768,
        hidden_act="quick_gelu",
    )
    return CLIPTextModel(config).eval()


class NoTextEncoder(nn.Module):
    """Stands where SDXL has two encoders, which erasing runs once per prompt: rows of noise for token ids."""

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(49408, width)
        self.pooled = nn.Linear(width, pooled)

    @property
    def device(self) -> torch.device:
        return self.pooled.weight.device


class RandomSDXL(StableDiffusionXL):
    """SDXL's conditioning: prompt embeddings, a pooled embedding and six numbers on the picture's size."""

    def make_encoders(self) -> list[TextEncoder]:
        return StableDiffusion.make_encoders(self)

    def unconditional(self) -> Conditioning:
        return self.encode([""])

    def embed(self, texts: Sequence[str]) -> Conditioning:
        (encoder,) = self.encoders
        embeds = encoder.module.tokens(encoder.tokens(texts).input_ids).float()
        size = 8.0 * self.latent_shape[1]
        time_ids = torch.tensor([[size, size, 0, 0, size, size]] * len(texts), device=self.device)
        pooled = encoder.module.pooled(embeds.mean(1))
        return Conditioning(embeds, {"pooled": pooled, "time_ids": time_ids})


def random_base(name: str, side: int, device: str, dtype: torch.dtype = torch.float32) -> Base:
    """A base of sd14's or sdxl's shapes. Its tokenizer is the pocket gallery's; it has no VAE worth the name."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(models.built_in()["pocket"] / "tokenizer", model_max_length=LENGTH)
    encoder: Any = text_encoder() if name == "sd14" else NoTextEncoder(2048, 1280)
    pipeline = SimpleNamespace(
        unet=nn.Module.to(unet(name, side), device, dtype),
        text_encoder=encoder.to(device),
        tokenizer=tokenizer,
        vae=nn.Linear(1, 1).to(device),
        scheduler=DDIMScheduler(**SCHEDULER),
    )
    return (StableDiffusion if name == "sd14" else RandomSDXL)(
        pipeline, name=f"random {name}", digest=f"random {name} {side}"
    )
