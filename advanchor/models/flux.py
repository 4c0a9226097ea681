"""FLUX.1, dev and schnell: T5 in the prompt embeddings, CLIP in the pooled vector, guidance as a number or none."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.flow import FlowBase, latent_side, patches, whole

GUIDANCE = 3.5  # what the pipeline of dev tells the model unless a user says otherwise
SCHNELL_STEPS, SCHNELL_LENGTH = 4, 256


class Flux(FlowBase):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.guided = "embedded" if self.is_dev else "none"

    @property
    def is_dev(self) -> bool:
        return bool(self.pipeline.transformer.config.guidance_embeds)

    @property
    def distilled_steps(self) -> int:
        return 0 if self.is_dev else SCHNELL_STEPS

    def shape_of_latents(self) -> tuple[int, int, int]:
        side = latent_side(self.pipeline)
        return self.pipeline.transformer.config.in_channels // 4, side, side

    def make_encoders(self) -> list[TextEncoder]:
        """schnell reads 256 tokens: its pipeline takes more, but it was made for those."""
        p = self.pipeline
        length = p.tokenizer_2.model_max_length if self.is_dev else min(SCHNELL_LENGTH, p.tokenizer_2.model_max_length)
        return [
            TextEncoder("text_encoder", p.text_encoder, p.tokenizer, p.tokenizer.model_max_length, rows=None),
            TextEncoder("text_encoder_2", p.text_encoder_2, p.tokenizer_2, length, causal=False, prefix=0),
        ]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        clip, t5 = self.encoders
        pooled = clip.module(clip.tokens(texts).input_ids).pooler_output
        return Conditioning(t5.module(t5.tokens(texts).input_ids)[0], {"pooled": pooled})

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        dtype, (rows, _, height, width) = next(module.parameters()).dtype, noisy_latents.shape
        embeds, told = conditioning.prompt_embeds.to(dtype), GUIDANCE if guidance is None else guidance
        output = module(
            patches(noisy_latents).to(dtype),
            timestep=timesteps.to(dtype) / 1000,
            guidance=torch.full((rows,), float(told), device=embeds.device) if self.is_dev else None,
            pooled_projections=conditioning.added["pooled"].to(dtype),
            encoder_hidden_states=embeds,
            txt_ids=torch.zeros(embeds.shape[1], 3, device=embeds.device, dtype=dtype),
            img_ids=places(height // 2, width // 2).to(embeds.device, dtype),
        )
        return whole(output.sample, height, width).float()


def places(rows: int, columns: int) -> Tensor:
    """(rows * columns, 3): 0, row and column of every patch."""
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] += torch.arange(rows)[:, None]
    ids[..., 2] += torch.arange(columns)
    return ids.view(-1, 3)
