"""PixArt-Sigma: a transformer with cross-attention to T5, variance-preserving noise."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.schedule import NoiseSchedule
from advanchor.models.solvers import variance_preserving

LENGTH = 300  # tokens, as the pipeline's default


class PixArtSigma(Base):
    backbone_name = "transformer"

    def make_schedule(self) -> NoiseSchedule:
        return NoiseSchedule(self.pipeline.scheduler.alphas_cumprod.float(), self.scheduler_config["prediction_type"])

    def make_encoders(self) -> list[TextEncoder]:
        p = self.pipeline
        return [TextEncoder("text_encoder", p.text_encoder, p.tokenizer, LENGTH, causal=False, prefix=0, lower=True)]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        (encoder,) = self.encoders
        tokens = encoder.tokens(texts)
        embeds = encoder.module(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        return Conditioning(embeds, {"mask": tokens.attention_mask})

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        """The first half of the channels; the second is a variance that no sampler uses."""
        dtype = next(module.parameters()).dtype
        output = module(
            noisy_latents.to(dtype),
            encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
            encoder_attention_mask=conditioning.added["mask"].to(dtype),
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        )
        return output.sample.float()[:, : noisy_latents.shape[1]]

    def read(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """What caption_projection makes of the prompt embeddings: keys and values are made from that."""
        return {"text": self.backbone.caption_projection(conditioning.prompt_embeds.to(self.dtype)).float()}

    def scheduler(self, solver: str, num_steps: int) -> Any:
        return variance_preserving(self.pipeline.scheduler, solver, num_steps)
