"""Sana: a linear transformer with cross-attention to Gemma 2, of flow, on latents that are 32 times smaller."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from advanchor.models import solvers
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.encoders import TextEncoder
from advanchor.models.schedule import FlowSchedule

LENGTH = 300  # tokens that are passed on, as the pipeline's default


class Sana(Base):
    backbone_name = "transformer"

    def make_schedule(self) -> FlowSchedule:
        return FlowSchedule(float(self.scheduler_config["flow_shift"]))

    @property
    def instruction(self) -> str:
        """What the pipeline puts in front of a prompt by default: the "complex human instruction"."""
        default = inspect.signature(type(self.pipeline).__call__).parameters["complex_human_instruction"].default
        return "\n".join(default or ())

    def make_encoders(self) -> list[TextEncoder]:
        """One, given the instruction and the prompt; of its tokens the first and the last 299 are passed on."""
        tokenizer, before = self.pipeline.tokenizer, self.instruction
        tokenizer.padding_side = "right"
        length = len(tokenizer.encode(before)) + LENGTH - 2 if before else LENGTH
        keep = [0, *range(length - LENGTH + 1, length)]
        return [
            TextEncoder(
                "text_encoder", self.pipeline.text_encoder, tokenizer, length, keep=keep, before=before, lower=True
            )
        ]

    def embed(self, texts: Sequence[str]) -> Conditioning:
        (encoder,) = self.encoders
        return self.embedded(encoder, texts)

    def embedded(self, encoder: TextEncoder, texts: Sequence[str]) -> Conditioning:
        tokens = encoder.tokens(texts)
        embeds = encoder.module(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        return Conditioning(embeds[:, encoder.keep], {"mask": tokens.attention_mask[:, encoder.keep]})

    def unconditional(self) -> Conditioning:
        """The empty prompt without the instruction."""
        (encoder,) = self.encoders
        plain = TextEncoder("text_encoder", encoder.module, encoder.tokenizer, LENGTH, lower=True)
        found = self.embedded(plain, [""])
        return Conditioning(found.prompt_embeds.float(), found.added)

    def denoise(
        self,
        module: nn.Module,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
    ) -> Tensor:
        dtype = next(module.parameters()).dtype
        output = module(
            noisy_latents.to(dtype),
            encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
            encoder_attention_mask=conditioning.added["mask"].to(dtype),
            timestep=timesteps * self.pipeline.transformer.config.timestep_scale,
        )
        return output.sample.float()

    def read(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """The normed output of caption_projection, from which keys and values are made."""
        backbone: Any = self.backbone
        projected = backbone.caption_projection(conditioning.prompt_embeds.to(self.dtype))
        return {"text": backbone.caption_norm(projected).float()}

    def scheduler(self, solver: str, num_steps: int) -> Any:
        return solvers.flow(self.pipeline.scheduler, num_steps)
