"""Z-Image: a single-stream transformer that reads Qwen3's last but one layer, whose time runs from noise to picture."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas
from torch import Tensor, nn

from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder, templated
from advanchor.models.flow import FlowBase, latent_side

LENGTH = 512  # tokens, as the pipeline's default


class ZImage(FlowBase):
    packable = False  # captions of different lengths are concatenated before the reader: its rows have no concept

    def shape_of_latents(self) -> tuple[int, int, int]:
        side = latent_side(self.pipeline)
        return self.pipeline.transformer.in_channels, side, side

    def timesteps(self, num_steps: int) -> dict[str, Any]:
        return {"sigmas": get_default_z_image_sigmas(num_steps), "mu": self.mu(num_steps)}

    def make_encoders(self) -> list[TextEncoder]:
        p, chat = self.pipeline, [{"role": "user", "content": "\0"}]
        before, after = templated(p.tokenizer, chat, add_generation_prompt=True, enable_thinking=True)
        fixed = len(p.tokenizer(before, add_special_tokens=False).input_ids)
        length = min(LENGTH, p.tokenizer.model_max_length)
        return [
            TextEncoder("text_encoder", p.text_encoder, p.tokenizer, length, prefix=fixed, before=before, after=after)
        ]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        (encoder,) = self.encoders
        tokens = encoder.tokens(texts)
        mask = tokens.attention_mask
        output = encoder.module(input_ids=tokens.input_ids, attention_mask=mask.bool(), output_hidden_states=True)
        return Conditioning(output.hidden_states[-2] * mask[..., None], {"mask": mask})

    def combined(self, unconditional: Tensor, conditional: Tensor, guidance: float) -> Tensor:
        return conditional + guidance * (conditional - unconditional)

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        """Turned round: the model's time is 1 - s and its output x_0 - noise."""
        dtype = next(module.parameters()).dtype
        pairs = zip(conditioning.prompt_embeds.to(dtype), conditioning.added["mask"].bool(), strict=True)
        captions = [embeds[mask] for embeds, mask in pairs]
        pictures = list(noisy_latents.to(dtype).unsqueeze(2).unbind(0))
        output = module(pictures, (1000 - timesteps.float()) / 1000, captions, return_dict=False)[0]
        return -torch.stack(output).squeeze(2).float()

    def read(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """Normed prompt embeddings."""
        return {"text": self.backbone.cap_embedder[0](conditioning.prompt_embeds.to(self.dtype)).float()}
