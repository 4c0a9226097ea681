"""Stable Diffusion 3 and 3.5: an MMDiT that reads two CLIP encoders side by side, then T5, and a pooled vector."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.flow import FlowBase
from advanchor.models.repeated_rows import last_row_weighs, repeated_rows

T5_LENGTH = 256  # tokens, as the pipeline's default; without T5 so many zero rows, which are told as one


class StableDiffusion3(FlowBase):
    @property
    def num_tokens(self) -> int:
        return (self.latent_shape[1] // self.backbone.config.patch_size) ** 2

    def timesteps(self, num_steps: int) -> dict[str, Any]:
        return {"mu": self.mu(num_steps)} if self.scheduler_config.get("use_dynamic_shifting") else {}

    def make_encoders(self) -> list[TextEncoder]:
        """Two CLIP encoders that share positions and, where it is not left out, T5 behind them."""
        p, found, column = self.pipeline, [], 0
        length = p.tokenizer.model_max_length
        for part, tokenizer in (("text_encoder", p.tokenizer), ("text_encoder_2", p.tokenizer_2)):
            module = getattr(p, part)
            width = module.config.hidden_size
            columns = slice(column, column + width)
            found.append(TextEncoder(part, module, tokenizer, length, rows=slice(0, length), columns=columns))
            column += width
        self.unfilled = 1 if p.text_encoder_3 is None else 0
        if p.text_encoder_3 is not None:
            rows = slice(length, length + T5_LENGTH)
            own = TextEncoder(
                "text_encoder_3", p.text_encoder_3, p.tokenizer_3, T5_LENGTH, rows, causal=False, prefix=0
            )
            found.append(own)
        return found

    def embed(self, texts: Sequence[str]) -> Conditioning:
        """CLIP's last but one layers, zero beyond their columns, then T5's output; without T5 one row of zeros."""
        clips = [e.module(e.tokens(texts).input_ids, output_hidden_states=True) for e in self.encoders[:2]]
        side_by_side = torch.cat([output.hidden_states[-2] for output in clips], -1)
        width = self.backbone.config.joint_attention_dim
        embeds = F.pad(side_by_side, (0, width - side_by_side.shape[-1]))
        if self.encoders[2:]:
            embeds = torch.cat([embeds, self.encoders[2].module(self.encoders[2].tokens(texts).input_ids)[0]], 1)
        else:
            embeds = F.pad(embeds, (0, 0, 0, 1))
        return Conditioning(embeds, {"pooled": torch.cat([output.text_embeds for output in clips], -1)})

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        dtype = next(module.parameters()).dtype
        embeds, pooled = conditioning.prompt_embeds.to(dtype), conditioning.added["pooled"].to(dtype)
        told = {"timestep": timesteps, "encoder_hidden_states": embeds, "pooled_projections": pooled}
        if not self.unfilled:
            return module(noisy_latents.to(dtype), **told).sample.float()
        weight = torch.full((1,), float(T5_LENGTH), device=embeds.device)
        scores = last_row_weighs(weight, self.num_tokens + embeds.shape[1])
        with repeated_rows(self.backbone):
            output = module(noisy_latents.to(dtype), **told, joint_attention_kwargs={"attention_mask": scores})
        return output.sample.float()
