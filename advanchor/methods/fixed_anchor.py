"""Concept Ablation with a fixed text anchor (Kumari et al. 2023): the student's concept becomes another prompt."""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advanchor.diffusion import Conditioning
from advanchor.text import fill
from advanchor.training import Batch, Context, Erasure, TrainingSettings, fit

VERSION = 1
PACKABLE = True  # several concepts may share a forward


class Settings(TrainingSettings):
    name: Literal["fixed_anchor"] = "fixed_anchor"
    anchor: Literal["superclass", "empty", "concept"] = Field(
        default="superclass",
        description="the neutral prompt, the empty prompt, or another concept in the same templates",
    )
    anchor_concept: str | None = Field(
        default=None, description="that other concept, for all; default: each concept's `similar`"
    )

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.anchor_concept and self.anchor != "concept":
            raise ValueError("anchor_concept goes with anchor: concept, and only with it")
        return self


@torch.no_grad()
def anchor_conditioning(context: Context, anchor: str, anchor_concept: str | None) -> Conditioning:
    """Embeddings (templates, L, D) of what stands in the concept's place."""
    match anchor:
        case "superclass":
            return context.e_n
        case "empty":
            return context.encode([""] * len(context.prompts))
        case "concept":
            named = ((anchor_concept or concept.similar, concept.templates) for concept in context.concepts)
            return context.encode([fill(template, name) for name, templates in named for template in templates])
    raise ValueError(f"no anchor {anchor!r}")


def erase(context: Context, settings: Settings) -> list[Erasure]:
    anchor = anchor_conditioning(context, settings.anchor, settings.anchor_concept)

    def target(batch: Batch) -> Tensor:
        """eps0(x_t, e_anchor)."""
        return context.teacher_constants(batch, {"anchor": anchor})["anchor"]

    return fit(context, settings, context.batches(settings, context.latents(settings)), target)
