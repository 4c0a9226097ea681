"""A learned anchor that starts anywhere and ends beyond neutral.

With d = eps0(x_t, e_c) - eps0(x_t, e_n) and m = eps0(x_t, e_a) - eps0(x_t, e_n), r = <m, d> / <d, d>.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.methods.anchors import LearnedAnchor, SearchSettings, anchor_prompts, text_anchor
from advanchor.training.context import Batch, Context


class FarSettings(SearchSettings):
    """Where a search starts, how far beyond neutral it leads, and how far beyond that the student goes."""

    strategy: Literal["alternating", "sequential", "cyclical"] = Field(
        default="sequential", description="sequential: the student only ever sees the anchor that the search ends with"
    )
    perturb_tokens: Literal["concept", "concept_and_later"] = Field(
        default="concept_and_later", description="the concept's own tokens, or also all tokens after them"
    )
    margin: float = Field(default=0.3, ge=0, description="how far beyond neutral the anchor goes, as a share of d")
    drift: float = Field(default=1.0, ge=0, description="weight of what else the anchor changes")
    beyond: float = Field(default=1.0, ge=0, description="how far beyond the anchor the student goes")
    start: Literal["own", "superclass", "similar"] = Field(
        default="superclass",
        description="where the search starts: the concept itself, its neutral prompt, a similar concept",
    )
    start_concept: str | None = Field(
        default=None, description="that similar concept, for all; default: each concept's `similar`"
    )

    def start_prompts(self, concept: Concept) -> tuple[str, ...]:
        return anchor_prompts(concept, self.start, self.start_concept)

    @model_validator(mode="after")
    def check_start(self) -> Self:
        if self.start_concept and self.start != "similar":
            raise ValueError("start_concept goes with start: similar, and only with it")
        return self


class FarAnchor(LearnedAnchor):
    """An anchor that starts where the settings say, ends beyond neutral, and changes as little else as it can:

        L = mean( max(r + margin, 0) + drift |s - q d|^2 / |d|^2 ),     s = eps0(x_t, e_a) - eps0(x_t, e_start),

    q = <s, d> / <d, d>, the share of s along d.
    """

    settings: FarSettings

    def __init__(self, context: Context, settings: FarSettings) -> None:
        super().__init__(context, settings, text_anchor(context, settings.start, settings.start_concept))

    def loss(self, batch: Batch) -> Tensor:
        """(concepts,): the hinge for the concept and its weighted attributes, the drift for the concept."""
        prompts = self.avoided | {"neutral": self.context.e_n}
        started = "neutral"  # also right for start: own, since eps_c - eps_n = d has no part across d
        if self.settings.start == "similar":
            started = "start"
            prompts[started] = self.e_start
        known = self.context.teacher_constants(batch, prompts)
        (eps_a,) = self.context.predict(batch, self.conditioning(batch.templates))
        moved = eps_a - known["neutral"]
        _, across = along_and_across(eps_a - known[started], known["concept"] - known["neutral"])
        total = self.settings.drift * across.mean(1)
        for name, weights in self.weights.items():
            r, _ = along_and_across(moved, known[name] - known["neutral"])
            total = total + weights[batch.concepts] * (r + self.settings.margin).clamp_min(0).mean(1)
        return total

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """eps0(x_t, e_a) - beyond (eps0(x_t, e_c) - eps0(x_t, e_a))."""
        eps_a = super().target(batch)
        eps_c = self.context.teacher_constants(batch, {"concept": self.context.e_c})["concept"]
        return eps_a - self.settings.beyond * (eps_c - eps_a)


def along_and_across(m: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """r = <m, d> / <d, d> and |m - r d|^2 / |d|^2, each (concepts, B), of m and d (concepts, B, C, h, w)."""
    m, d = m.flatten(2), d.flatten(2)
    squared = d.square().sum(-1).clamp_min(1e-12)
    r = (m * d).sum(-1) / squared
    return r, (m - r.unsqueeze(-1) * d).square().sum(-1) / squared
