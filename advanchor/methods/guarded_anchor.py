"""Adversarial anchors with a guard: AdvAnchor (Zhao et al. 2024) with four changes, each of which can be turned off.

1. The anchor covers the tokens after the concept, which carry it in a causal text encoder.
2. It ends beyond neutral, not at it: with d = eps0(x_t, e_c) - eps0(x_t, e_n),

       L = mean( (eps0(x_t, e_a) - eps0(x_t, e_n)) * d ) + margin * mean( d * d ).

3. It may start at another concept: e_a = e_start + pad(e_adv).
4. The student learns dW P instead of dW: P leaves retained prompts what they mean (guard.py). The student is trained
   with P in place, so that it makes up for what P takes away.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advanchor import losses
from advanchor.diffusion import Conditioning
from advanchor.guard import gram, guard
from advanchor.methods import adv_anchor, fixed_anchor
from advanchor.methods.adv_anchor import Anchor, erase_towards
from advanchor.retained import encode_all, mentions, own_vocabulary, sampled_prompts
from advanchor.text import pad_to_prompt
from advanchor.training import Batch, Context, Erasure

VERSION = 1
PACKABLE = True


class Settings(adv_anchor.Settings):
    name: Literal["guarded_anchor"] = "guarded_anchor"  # type: ignore[assignment]
    trained_weights: Literal["cross_attention_kv"] = Field(
        default="cross_attention_kv", description="the guard is about keys and values"
    )
    loss: Literal["adv2"] = Field(default="adv2", description="the loss that the margin belongs to")
    strategy: Literal["alternating", "sequential", "cyclical"] = Field(
        default="sequential", description="sequential: the student only ever sees the anchor that the search ends with"
    )
    perturb_space: Literal["prompt_embeds"] = Field(
        default="prompt_embeds", description="add e_adv to what the UNet reads"
    )
    perturb_tokens: Literal["concept", "concept_and_later"] = Field(
        default="concept_and_later",
        description="the concept's own tokens, or also all tokens after them",
    )
    margin: float = Field(default=0.2, ge=0, description="how far beyond neutral the anchor goes, as a share of d")
    start: Literal["own", "superclass", "concept"] = Field(
        default="own", description="where the search starts: the concept itself, its neutral prompt, another concept"
    )
    start_concept: str | None = Field(default=None, description="that other concept")
    retain_weight: float = Field(default=1.0, ge=0, description="gamma of the guard; 0: no guard")
    retain_prompts: int = Field(default=1000, ge=1, description="prompts of the base's own world that are retained")
    ridge: float = Field(default=1e-5, gt=0, description="lambda of the guard, as a share of the mean eigenvalue")

    @model_validator(mode="after")
    def check(self) -> Self:
        if (self.start == "concept") != (self.start_concept is not None):
            raise ValueError("start_concept goes with start: concept, and only with it")
        return self


class FarAnchor(Anchor):
    """An anchor that starts where the settings say and ends beyond neutral."""

    settings: Settings

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context, settings)
        start = context.e_c
        if settings.start != "own":
            start = fixed_anchor.anchor_conditioning(context, settings.start, settings.start_concept)
        self.start = start

    def conditioning(self, templates: Tensor) -> Conditioning:
        start = self.start.rows(templates)
        return start.with_embeds(start.prompt_embeds + pad_to_prompt(torch.cat(self.e_adv), self.positions[templates]))

    def loss(self, batch: Batch) -> Tensor:
        known = self.context.teacher_constants(batch, {"concept": self.context.e_c, "neutral": self.context.e_n})
        d = known["concept"] - known["neutral"]
        return super().loss(batch) + self.settings.margin * losses.mean(d.square())


def guards(context: Context, settings: Settings) -> Tensor:
    """P (concepts, D, D): each concept is told from the prompts of the base's world that do not mention it."""
    base, concepts = context.base, context.concepts
    kept = encode_all(base, [""])[0].T
    prompts = sampled_prompts(own_vocabulary(base.name), settings.retain_prompts, seed=0)
    embeds = encode_all(base, prompts)
    found = []
    for concept, rows in zip(concepts, context.spans, strict=True):
        names = (concept.name, *concept.attributes)
        others = [i for i, prompt in enumerate(prompts) if not any(mentions(prompt, name) for name in names)]
        together = torch.cat([embeds[others], context.e_n.prompt_embeds[rows].cpu()])
        own = context.e_c.prompt_embeds[rows]
        found.append(guard(own, settings.retain_weight * gram(together), kept, settings.ridge))
    return torch.stack(found)


def erase(context: Context, settings: Settings) -> list[Erasure]:
    anchor = FarAnchor(context, settings)
    if not settings.retain_weight:
        return erase_towards(anchor)
    p = guards(context, settings)
    with context.delta.guarded(p.to(context.base.device)):
        erasures = erase_towards(anchor)
    for slot, erasure in enumerate(erasures):
        erasure.delta = {name: dw @ p[slot] if dw.ndim == 2 else dw for name, dw in erasure.delta.items()}
        context.engine.load(erasure.delta, slot)
    return erasures
