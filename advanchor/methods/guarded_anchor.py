"""Adversarial anchors beyond neutral, with a guard: AdvAnchor (Zhao et al. 2024), changed in four ways.

With d = eps0(x_t, e_c) - eps0(x_t, e_n) and m = eps0(x_t, e_a) - eps0(x_t, e_n), r = <m, d> / <d, d>:

1. The anchor starts at the neutral prompt (or another concept, or, as in the paper, the concept): e_a = e_start +
   pad(e_adv), where e_adv also covers the tokens after the concept, which carry it in a causal text encoder.
2. The anchor goes beyond neutral and changes nothing else. Instead of L_adv2, which is <m, d>, the search minimises

       L = mean( max(r + margin, 0) + drift |s - q d|^2 / |d|^2 ),     s = eps0(x_t, e_a) - eps0(x_t, e_start),

   q its share along d: what the anchor does aside of d, measured from where it started.

3. The student goes beyond the anchor, away from the concept:

       target = eps0(x_t, e_a) - beyond (eps0(x_t, e_c) - eps0(x_t, e_a)).

4. The student learns dW P instead of dW: P leaves retained prompts what they mean (guard.py). The student is trained
   with P in place, so that it makes up for what P takes away.

Each can be turned off: start: own; margin and drift 0; beyond: 0; retain_weight: 0.
"""

from collections.abc import Callable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.diffusion import Conditioning
from advanchor.guard import gram, guard
from advanchor.methods import adv_anchor, fixed_anchor
from advanchor.methods.adv_anchor import Anchor, erase_towards
from advanchor.retained import encode_all, mentions, own_vocabulary, sampled_prompts
from advanchor.text import pad_to_prompt
from advanchor.training import Batch, Context, Erasure

VERSION = 2
PACKABLE = True


class Settings(adv_anchor.Settings):
    name: Literal["guarded_anchor"] = "guarded_anchor"  # type: ignore[assignment]
    trained_weights: Literal["cross_attention_kv"] = Field(
        default="cross_attention_kv", description="the guard is about keys and values"
    )
    loss: Literal["adv2"] = Field(default="adv2", description="what the search's loss is built on")
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
    retain_weight: float = Field(default=1.0, ge=0, description="gamma of the guard; 0: no guard")
    retain_prompts: int = Field(default=1000, ge=1, description="prompts of the base's own world that are retained")
    ridge: float = Field(default=1e-5, gt=0, description="lambda of the guard, as a share of the mean eigenvalue")

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.start_concept and self.start != "similar":
            raise ValueError("start_concept goes with start: similar, and only with it")
        return self


class FarAnchor(Anchor):
    """An anchor that starts where the settings say and ends beyond neutral."""

    settings: Settings

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context, settings)
        match settings.start:
            case "own":
                self.start = context.e_c
            case "superclass":
                self.start = context.e_n
            case "similar":
                self.start = fixed_anchor.anchor_conditioning(context, "concept", settings.start_concept)

    def conditioning(self, templates: Tensor) -> Conditioning:
        start = self.start.rows(templates)
        return start.with_embeds(start.prompt_embeds + pad_to_prompt(torch.cat(self.e_adv), self.positions[templates]))

    def loss(self, batch: Batch) -> Tensor:
        """(concepts,): the hinge for the concept and its weighted attributes, the drift for the concept."""
        prompts = self.directions | {"neutral": self.context.e_n}
        started = "neutral"  # or the concept itself: between the two nothing is aside
        if self.settings.start == "similar":
            started = "start"
            prompts[started] = self.start
        known = self.context.teacher_constants(batch, prompts)
        (eps_a,) = self.context.predict(batch, self.conditioning(batch.templates))
        moved = eps_a - known["neutral"]
        _, aside = along_and_aside(eps_a - known[started], known["concept"] - known["neutral"])
        total = self.settings.drift * aside.mean(1)
        for name, weights in self.weights.items():
            r, _ = along_and_aside(moved, known[name] - known["neutral"])
            total = total + weights[batch.concepts] * (r + self.settings.margin).clamp_min(0).mean(1)
        return total

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        eps_a = super().target(batch)
        eps_c = self.context.teacher_constants(batch, {"concept": self.context.e_c})["concept"]
        return eps_a - self.settings.beyond * (eps_c - eps_a)


def along_and_aside(m: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """r = <m, d> / <d, d> and |m - r d|^2 / |d|^2, each (concepts, B), of m and d (concepts, B, C, h, w)."""
    m, d = m.flatten(2), d.flatten(2)
    squared = d.square().sum(-1).clamp_min(1e-12)
    r = (m * d).sum(-1) / squared
    return r, (m - r.unsqueeze(-1) * d).square().sum(-1) / squared


def guards(context: Context, settings: Settings) -> Tensor:
    """P (concepts, D, D): each concept is told from the prompts of the base's world that do not mention it."""
    base, concepts = context.base, context.concepts
    kept = encode_all(base, [""])[0].T
    prompts = sampled_prompts(own_vocabulary(base.name), settings.retain_prompts, seed=0)
    embeds = encode_all(base, prompts)
    found = []
    for concept, rows in zip(concepts, context.spans, strict=True):
        others = [i for i, prompt in enumerate(prompts) if not mentioned(concept, prompt)]
        together = torch.cat([embeds[others], context.e_n.prompt_embeds[rows].cpu()])
        own = context.e_c.prompt_embeds[rows]
        found.append(guard(own, settings.retain_weight * gram(together), kept, settings.ridge))
    return torch.stack(found)


def mentioned(concept: Concept, prompt: str) -> bool:
    return any(mentions(prompt, name) for name in (concept.name, *concept.attributes))


def erase(context: Context, settings: Settings) -> list[Erasure]:
    anchor, latents = FarAnchor(context, settings), context.latents(settings)
    return behind_guards(context, settings, lambda: erase_towards(anchor, latents))


def behind_guards(context: Context, settings: Settings, train: Callable[[], list[Erasure]]) -> list[Erasure]:
    """What `train` makes of dW P in place of dW, with dW P as the delta: the engine holds it as well."""
    if not settings.retain_weight:
        return train()
    p = guards(context, settings)
    with context.delta.guarded(p.to(context.base.device)):
        erasures = train()
    for slot, erasure in enumerate(erasures):
        erasure.delta = {name: dw @ p[slot] if dw.ndim == 2 else dw for name, dw in erasure.delta.items()}
        context.engine.load(erasure.delta, slot)
    return erasures
