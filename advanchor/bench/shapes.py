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
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from advanchor import models
from advanchor.diffusion import Conditioning
from advanchor.models.base import Base
from advanchor.text import Prompt, tokenize

UNETS: dict[str, dict[str, Any]] = {
    "sd14": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
LENGTH = 77  # tokens of a prompt
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def unet(name: str, side: int | None = None) -> UNet2DConditionModel:
    """A UNet of sd14 or sdxl; `side`: of its latents, instead of the published size."""
    config: dict[str, Any] = UNETS[name] | ({"sample_size": side} if side else {})
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


class RandomSDXL(Base):
    """SDXL's conditioning: prompt embeddings, a pooled embedding and six numbers on the picture's size."""

    def encode(self, prompts: Sequence[str | Prompt], token_shift: Tensor | None = None) -> Conditioning:
        if token_shift is not None:
            raise NotImplementedError("noise instead of text encoders has no token embeddings to shift")
        texts = [prompt.text if isinstance(prompt, Prompt) else prompt for prompt in prompts]
        embeds = self.text_encoder.tokens(tokenize(self.tokenizer, texts).to(self.device)).float()
        size = 8.0 * self.latent_shape[1]
        time_ids = torch.tensor([[size, size, 0, 0, size, size]] * len(texts), device=self.device)
        pooled = self.text_encoder.pooled(embeds.mean(1))
        return Conditioning(embeds, {"text_embeds": pooled, "time_ids": time_ids})


def random_base(name: str, side: int, device: str, dtype: torch.dtype = torch.float32) -> Base:
    """A base of sd14's or sdxl's shapes. Its tokenizer is the pocket gallery's; it has no VAE worth the name."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(models.BUILT_IN["pocket"] / "tokenizer", model_max_length=LENGTH)
    encoder: Any = text_encoder() if name == "sd14" else NoTextEncoder(2048, 1280)
    pipeline = SimpleNamespace(
        unet=nn.Module.to(unet(name, side), device, dtype),
        text_encoder=encoder.to(device),
        tokenizer=tokenizer,
        vae=nn.Linear(1, 1).to(device),
        scheduler=DDIMScheduler(**SCHEDULER),
    )
    return (Base if name == "sd14" else RandomSDXL)(pipeline, name=f"random {name}", digest=f"random {name} {side}")
