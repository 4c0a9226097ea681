"""FLUX.2, dev and klein: three layers of a chat model side by side, no pooled vector, latents patched and normed."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, format_input
from torch import Tensor, nn

from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder, templated
from advanchor.models.flow import FlowBase, latent_side

GUIDANCE = 4.0  # what dev's pipeline tells the model unless a user says otherwise


class Flux2Klein(FlowBase):
    told: ClassVar[bool] = False  # whether the model is told its guidance

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.guided = "none" if self.distilled_steps else "classifier_free"

    @property
    def distilled_steps(self) -> int:
        return 4 if self.pipeline.config.get("is_distilled") else 0

    def shape_of_latents(self) -> tuple[int, int, int]:
        side = latent_side(self.pipeline) // 2
        return self.pipeline.transformer.config.in_channels, side, side

    @property
    def num_tokens(self) -> int:
        return self.latent_shape[1] * self.latent_shape[2]

    def mu(self, num_steps: int) -> float:
        return compute_empirical_mu(self.num_tokens, num_steps)

    @property
    def layers(self) -> tuple[int, ...]:
        """Which hidden states are read: the pipeline's default, if the encoder has so many, else evenly spread ones."""
        default = inspect.signature(type(self.pipeline).__call__).parameters["text_encoder_out_layers"].default
        config = self.encoders[0].module.config
        depth = getattr(config, "text_config", config).num_hidden_layers
        return default if depth >= max(default) else tuple(depth * (i + 1) // 4 for i in range(3))

    def template(self) -> tuple[str, str]:
        chat = [{"role": "user", "content": "\0"}]
        return templated(self.pipeline.tokenizer, chat, add_generation_prompt=True, enable_thinking=False)

    def make_encoders(self) -> list[TextEncoder]:
        p, (before, after) = self.pipeline, self.template()
        tokenizer = getattr(p.tokenizer, "tokenizer", p.tokenizer)
        length = p.tokenizer_max_length
        fixed = len(tokenizer(before, add_special_tokens=False).input_ids) if tokenizer.padding_side != "left" else 0
        own = TextEncoder("text_encoder", p.text_encoder, tokenizer, length, prefix=fixed, before=before, after=after)
        return [own]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        (encoder,) = self.encoders
        tokens = encoder.tokens(texts)
        output = encoder.module(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True, use_cache=False
        )
        return Conditioning(torch.cat([output.hidden_states[k] for k in self.layers], -1))

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        dtype, (rows, channels, height, width) = next(module.parameters()).dtype, noisy_latents.shape
        embeds, strength = conditioning.prompt_embeds.to(dtype), GUIDANCE if guidance is None else guidance
        output = module(
            noisy_latents.flatten(2).transpose(1, 2).to(dtype),
            timestep=timesteps.to(dtype) / 1000,
            guidance=torch.full((rows,), float(strength), device=embeds.device) if self.told else None,
            encoder_hidden_states=embeds,
            txt_ids=places(1, 1, embeds.shape[1]).to(embeds.device),
            img_ids=places(height, width, 1).to(embeds.device),
        )
        return output.sample.transpose(1, 2).reshape(rows, channels, height, width).float()

    def to_pixels(self, latents: Tensor) -> Tensor:
        """The VAE's batch norm undone, patches put together, decoded."""
        norm = self.vae.bn
        mean, variance = (own.view(1, -1, 1, 1) for own in (norm.running_mean, norm.running_var))
        wide = latents * (variance + self.vae.config.batch_norm_eps).sqrt() + mean
        whole = self.pipeline._unpatchify_latents(wide)
        return self.vae.decode(whole.to(next(self.vae.parameters()).dtype)).sample


class Flux2(Flux2Klein):
    told = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.guided = "embedded"

    @property
    def distilled_steps(self) -> int:
        return 0

    def template(self) -> tuple[str, str]:
        (chat,) = format_input(["\0"], self.pipeline.system_message)
        return templated(self.pipeline.tokenizer, chat, add_generation_prompt=False)


def places(rows: int, columns: int, tokens: int) -> Tensor:
    """(rows * columns * tokens, 4): time, row, column and number of every token."""
    return torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns), torch.arange(tokens))
