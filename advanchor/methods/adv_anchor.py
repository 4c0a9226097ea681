"""AdvAnchor: fine-tuning towards adversarial anchors (Zhao et al. 2024, arXiv 2501.00054).

The anchor is the concept's own embedding plus a universal perturbation, e_a = e_c + pad(e_adv), found on the teacher:

    L_adv1 = mean( eps0(x_t, e_a) * eps0(x_t, e_c) )
    L_adv2 = mean( (eps0(x_t, e_a) - eps0(x_t, e_n)) * (eps0(x_t, e_c) - eps0(x_t, e_n)) )

The student then learns to predict for the concept what the teacher predicts for the anchor.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor import losses
from advanchor.diffusion import Conditioning
from advanchor.engine import derived_seed
from advanchor.text import fill, later_tokens, pad_to_prompt
from advanchor.training import Batch, Context, Erasure, TrainingSettings, fit

VERSION = 1  # raised whenever the same settings give other numbers


class Settings(TrainingSettings):
    name: Literal["adv_anchor"] = "adv_anchor"
    loss: Literal["adv1", "adv2"] = Field(
        default="adv2", description="which of the paper's two losses finds the anchor"
    )
    strategy: Literal["alternating", "sequential", "cyclical"] = Field(
        default="alternating", description="how anchor steps and student steps take turns"
    )
    anchor_steps: int = Field(
        default=30, ge=0, description="steps on e_adv per batch (cyclical: sweeps over all batches)"
    )
    anchor_lr: float = Field(default=1e-4, gt=0, description="learning rate of e_adv (Adam without weight decay)")
    anchor_init: float = Field(default=1e-7, ge=0, description="standard deviation of e_adv at the start")
    perturb_space: Literal["prompt_embeds", "token_embeds"] = Field(
        default="prompt_embeds", description="add e_adv to what the UNet reads, or before the text encoder"
    )
    perturb_tokens: Literal["concept", "concept_and_later"] = Field(
        default="concept", description="the concept's own tokens, or also, with one shared row, all tokens after them"
    )
    reset_anchor_optimizer: bool = Field(
        default=False, description="a new Adam for every batch, as in the authors' scripts"
    )


class Anchor:
    """e_adv (rows, D), its optimizer and its loss; row j belongs to the concept's j-th token."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self.context, self.settings = context, settings
        later = settings.perturb_tokens == "concept_and_later"
        self.positions = later_tokens(context.positions) if later else context.positions  # (templates, L)
        shape = int(self.positions.max()) + 1, context.e_c.prompt_embeds.shape[-1]
        generator = torch.Generator().manual_seed(derived_seed(context.seed, "e_adv"))
        e_adv = settings.anchor_init * torch.randn(shape, generator=generator)
        self.e_adv = e_adv.to(context.base.device).requires_grad_()
        self.reset_optimizer()
        concept = context.concept
        with torch.no_grad():
            attributes = [
                context.base.encode([fill(template, attribute) for template in concept.templates])
                for attribute in concept.attributes
            ]
        self.directions = {"concept": context.e_c} | dict(zip(concept.attributes, attributes, strict=True))
        self.weights = {"concept": 1.0} | concept.attributes

    def reset_optimizer(self) -> None:
        self.optimizer = torch.optim.Adam([self.e_adv], lr=self.settings.anchor_lr)

    def conditioning(self, templates: Tensor) -> Conditioning:
        """e_a for the rows of a batch."""
        shift = pad_to_prompt(self.e_adv, self.positions[templates])
        if self.settings.perturb_space == "prompt_embeds":
            e_c = self.context.e_c.rows(templates)
            return e_c.with_embeds(e_c.prompt_embeds + shift)
        return self.context.base.encode([self.context.prompts[i] for i in templates.tolist()], token_shift=shift)

    def loss(self, batch: Batch) -> Tensor:
        """adv1 or adv2 against the concept and, weighted, its attributes; halved where there are any (authors)."""
        known = self.context.teacher_constants(batch, self.directions | {"neutral": self.context.e_n})
        eps_a = self.context.predict(batch, self.conditioning(batch.templates))
        total = torch.zeros((), device=eps_a.device)
        for name, weight in self.weights.items():
            if self.settings.loss == "adv1":
                total = total + weight * losses.adv1(eps_a, known[name])
            else:
                total = total + weight * losses.adv2(eps_a, known[name], known["neutral"])
        return total / 2 if len(self.weights) > 1 else total

    def step(self, batch: Batch) -> bool:
        """One step on e_adv; False, and no step, where the loss (the mean over the ranks) is already at or below 0."""
        loss = self.loss(batch)
        if self.context.engine.mean(loss.detach()) <= 0:
            return False
        (gradient,) = torch.autograd.grad(loss, self.e_adv)
        self.e_adv.grad = self.context.engine.mean(gradient)
        self.optimizer.step()
        return True

    def search(self, batch: Batch) -> None:
        """Up to `anchor_steps` steps on one batch."""
        if self.settings.reset_anchor_optimizer:
            self.reset_optimizer()
        for _ in range(self.settings.anchor_steps):
            if not self.step(batch):
                break

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """eps0(x_t, e_a)."""
        return self.context.predict(batch, self.conditioning(batch.templates))


def erase(context: Context, settings: Settings) -> Erasure:
    anchor = Anchor(context, settings)
    latents = context.latents(settings)
    batches = context.batches(settings, latents)

    def sweep(number: int) -> list[Batch]:
        return context.batches(settings, latents, number) if settings.redraw and number else batches

    def searched_target(batch: Batch) -> Tensor:
        anchor.search(batch)
        return anchor.target(batch)

    match settings.strategy:
        case "alternating":
            erasure = fit(context, settings, batches, searched_target)
        case "sequential":
            for i, batch in enumerate(batches):
                anchor.search(batch)
                context.report("anchor", i + 1, len(batches), 0.0)
            erasure = fit(context, settings, sweep(1), anchor.target)
        case "cyclical":
            for i in range(settings.anchor_steps):
                for batch in sweep(i):
                    anchor.step(batch)
                context.report("anchor", i + 1, settings.anchor_steps, 0.0)
            erasure = fit(context, settings, sweep(settings.anchor_steps), anchor.target)
    erasure.e_adv = anchor.e_adv.detach().cpu()
    erasure.facts |= distances(anchor)
    return erasure


def distances(anchor: Anchor) -> dict[str, float]:
    """How far the anchor went: the mean norm of e_adv's rows, and relative to the concept's own embeddings."""
    inside = anchor.context.positions >= 0
    own = anchor.context.e_c.prompt_embeds[inside].norm(dim=-1).mean()
    rows = anchor.e_adv.detach().norm(dim=-1)
    return {"e_adv_norm": rows.mean().item(), "e_adv_relative_norm": (rows.mean() / own).item()}
