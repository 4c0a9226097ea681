"""SDXL: a UNet that two CLIP text encoders speak to, side by side, with a pooled vector and six numbers of size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    def make_encoders(self) -> list[TextEncoder]:
        pipeline = self.pipeline
        width = pipeline.text_encoder.config.hidden_size
        first, second = pipeline.tokenizer, pipeline.tokenizer_2
        return [
            TextEncoder("text_encoder", pipeline.text_encoder, first, first.model_max_length, columns=slice(0, width)),
            TextEncoder(
                "text_encoder_2", pipeline.text_encoder_2, second, second.model_max_length, columns=slice(width, None)
            ),
        ]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        """Each encoder's last but one layer; the second one's projection is the pooled vector."""
        found = [e.module(e.tokens(texts).input_ids, output_hidden_states=True) for e in self.encoders]
        embeds = torch.cat([output.hidden_states[-2] for output in found], -1)
        return Conditioning(embeds, {"pooled": found[-1].text_embeds, "time_ids": self.time_ids(len(texts))})

    def time_ids(self, rows: int) -> Tensor:
        """(rows, 6): original size, crop and target size in pixels, all of the whole picture."""
        side = float(self.latent_shape[1] * self.pipeline.vae_scale_factor)
        return torch.tensor([[side, side, 0, 0, side, side]] * rows, device=self.device)

    def unconditional(self) -> Conditioning:
        """Zeros, where the pipeline's configuration says so."""
        empty = self.encode([""])
        if not self.pipeline.config.force_zeros_for_empty_prompt:
            return empty
        zeros = {"pooled": torch.zeros_like(empty.added["pooled"])}
        return Conditioning(torch.zeros_like(empty.prompt_embeds), empty.added | zeros)

    def added_kwargs(self, conditioning: Conditioning, dtype: torch.dtype) -> dict[str, Any]:
        added = conditioning.added
        return {"text_embeds": added["pooled"].to(dtype), "time_ids": added["time_ids"].to(dtype)}

    def read_pooled(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """The pooled vector beside the embedded sizes: what add_embedding is given."""
        added, unet = conditioning.added, self.backbone
        sizes = unet.add_time_proj(added["time_ids"].flatten()).view(*added["time_ids"].shape[:-1], -1)
        return {"pooled": torch.cat([added["pooled"], sizes.to(added["pooled"])], -1).unsqueeze(-2)}

    def to_pixels(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
        if mean is None or std is None:
            return super().to_pixels(latents)
        mean, std = (torch.tensor(own, device=latents.device).view(1, -1, 1, 1) for own in (mean, std))
        whole = latents * std / config.scaling_factor + mean
        return self.vae.decode(whole.to(next(self.vae.parameters()).dtype)).sample
