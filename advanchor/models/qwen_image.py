"""Qwen-Image: an MMDiT that reads Qwen2.5-VL behind a template, a mask, guidance rescaled token by token."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.flow import FlowBase, latent_side, patches, whole

LENGTH = (
    256  # tokens of a prompt that are encoded; the pipeline pads to the batch's longest, which the mask makes equal
)


class QwenImage(FlowBase):
    def shape_of_latents(self) -> tuple[int, int, int]:
        side = latent_side(self.pipeline)
        return self.pipeline.transformer.config.in_channels // 4, side, side

    def make_encoders(self) -> list[TextEncoder]:
        p = self.pipeline
        before, after = p.prompt_template_encode.split("{}")
        dropped = p.prompt_template_encode_start_idx
        length = min(LENGTH, p.tokenizer_max_length) + dropped
        rest = len(p.tokenizer(before, add_special_tokens=False).input_ids) - dropped
        return [
            TextEncoder(
                "text_encoder",
                p.text_encoder,
                p.tokenizer,
                length,
                keep=slice(dropped, None),
                prefix=max(rest, 0),
                before=before,
                after=after,
            )
        ]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        (encoder,) = self.encoders
        tokens = encoder.tokens(texts)
        mask = tokens.attention_mask
        output = encoder.module(input_ids=tokens.input_ids, attention_mask=mask, output_hidden_states=True)
        kept, mask = output.hidden_states[-1][:, encoder.keep], mask[:, encoder.keep]
        return Conditioning(kept * mask[..., None], {"mask": mask})

    def combined(self, unconditional: Tensor, conditional: Tensor, guidance: float) -> Tensor:
        """Every patch as long as the conditional's."""
        guided, own = patches(super().combined(unconditional, conditional, guidance)), patches(conditional)
        scaled = guided * (own.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return whole(scaled, *conditional.shape[-2:])

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        dtype, (rows, _, height, width) = next(module.parameters()).dtype, noisy_latents.shape
        output = module(
            patches(noisy_latents).to(dtype),
            timestep=timesteps.to(dtype) / 1000,
            encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
            encoder_hidden_states_mask=conditioning.added["mask"],
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
        )
        return whole(output.sample, height, width).float()

    def read(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """Normed prompt embeddings."""
        return {"text": self.backbone.txt_norm(conditioning.prompt_embeds.to(self.dtype)).float()}

    def to_pixels(self, latents: Tensor) -> Tensor:
        """The first frame of the video that the VAE makes."""
        config = self.vae.config
        mean, std = (
            torch.tensor(own, device=latents.device).view(1, -1, 1, 1, 1)
            for own in (config.latents_mean, config.latents_std)
        )
        video = latents.unsqueeze(2) * std + mean
        return self.vae.decode(video.to(next(self.vae.parameters()).dtype)).sample[:, :, 0]
