"""Stable Diffusion 1.x and 2.x: a UNet with cross-attention, one CLIP text encoder, variance-preserving noise."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.schedule import NoiseSchedule
from advanchor.models.solvers import variance_preserving


class StableDiffusion(Base):
    def make_schedule(self) -> NoiseSchedule:
        alphas = self.pipeline.scheduler.alphas_cumprod
        return NoiseSchedule(alphas.float(), self.scheduler_config["prediction_type"])

    def make_encoders(self) -> list[TextEncoder]:
        tokenizer = self.pipeline.tokenizer
        return [TextEncoder("text_encoder", self.pipeline.text_encoder, tokenizer, tokenizer.model_max_length)]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        (encoder,) = self.encoders
        return Conditioning(encoder.module(encoder.tokens(texts).input_ids).last_hidden_state)

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        dtype = next(module.parameters()).dtype
        embeds, added = conditioning.prompt_embeds.to(dtype), self.added_kwargs(conditioning, dtype)
        output = module(noisy_latents.to(dtype), timesteps, encoder_hidden_states=embeds, added_cond_kwargs=added)
        return output.sample.float()

    def added_kwargs(self, conditioning: Conditioning, dtype: torch.dtype) -> dict[str, Any] | None:
        return None

    def scheduler(self, solver: str, num_steps: int) -> Any:
        return variance_preserving(self.pipeline.scheduler, solver, num_steps)
