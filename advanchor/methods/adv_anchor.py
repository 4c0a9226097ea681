"""AdvAnchor: fine-tuning towards adversarial anchors (Zhao et al. 2024, arXiv 2501.00054).

The anchor is the concept's own embedding plus a universal perturbation, e_a = e_c + pad(e_adv), found on the teacher:

    L_adv1 = mean( eps0(x_t, e_a) * eps0(x_t, e_c) )
    L_adv2 = mean( (eps0(x_t, e_a) - eps0(x_t, e_n)) * (eps0(x_t, e_c) - eps0(x_t, e_n)) )

The student then learns to predict for the concept what the teacher predicts for the anchor.
"""

from itertools import accumulate
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
PACKABLE = True  # several concepts, of equally many attributes, may share a forward


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


class Perturbation:
    """Each concept's e_adv (rows, D) and its optimizer; row j belongs to the concept's j-th token."""

    def __init__(self, context: Context, settings: Settings, seed: str = "e_adv") -> None:
        """seed: what it starts from beside the concept's own seed."""
        self.context, self.settings = context, settings
        own_positions = [context.positions[span] for span in context.spans]
        if settings.perturb_tokens == "concept_and_later":
            own_positions = [later_tokens(positions) for positions in own_positions]
        width = context.e_c.prompt_embeds.shape[-1]
        self.e_adv: list[Tensor] = []  # (rows, D) of each concept: as many as it has tokens
        for positions, own_seed in zip(own_positions, context.seeds, strict=True):
            generator = torch.Generator().manual_seed(derived_seed(own_seed, seed))
            start = settings.anchor_init * torch.randn(int(positions.max()) + 1, width, generator=generator)
            self.e_adv.append(start.to(context.base.device).requires_grad_())
        self.positions = positions_in_table(own_positions, [len(rows) for rows in self.e_adv])  # (templates, L)
        self.reset_optimizer()

    def reset_optimizer(self) -> None:
        self.optimizer = torch.optim.Adam(self.e_adv, lr=self.settings.anchor_lr)

    def conditioning(self, templates: Tensor) -> Conditioning:
        """e_c with e_adv (concepts, B, L, D) for the rows of a batch."""
        shift = pad_to_prompt(torch.cat(self.e_adv), self.positions[templates])
        if self.settings.perturb_space == "prompt_embeds":
            e_c = self.context.e_c.rows(templates)
            return e_c.with_embeds(e_c.prompt_embeds + shift)
        prompts = [self.context.prompts[i] for i in templates.flatten().tolist()]
        e_a = self.context.base.encode(prompts, token_shift=shift.flatten(0, 1))
        return e_a.rows(torch.arange(len(prompts)).view_as(templates))

    def loss(self, batch: Batch) -> Tensor:
        """What e_adv is to make small, (concepts,)."""
        raise NotImplementedError

    def step(self, batch: Batch) -> list[int]:
        """One step on each e_adv; returns the concepts that took it.

        Those whose loss (the mean over the ranks) is already at or below 0 take none.
        """
        loss = self.loss(batch)
        values = self.context.engine.mean(loss.detach()).tolist()
        above = [number for number, value in zip(batch.concepts, values, strict=True) if value > 0]
        if above:
            self.optimizer.zero_grad()  # without a gradient Adam leaves an e_adv and its moments alone
            gradients = torch.autograd.grad(loss.sum(), [self.e_adv[number] for number in above])
            for number, gradient in zip(above, gradients, strict=True):
                self.e_adv[number].grad = self.context.engine.mean(gradient)
            self.optimizer.step()
        return above


class Anchor(Perturbation):
    """e_a, found on the teacher."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context, settings)
        self.directions, self.weights = directions(context)

    def loss(self, batch: Batch) -> Tensor:
        """adv1 or adv2, (concepts,), against the concept and its weighted attributes; halved if there are any."""
        known = self.context.teacher_constants(batch, self.directions | {"neutral": self.context.e_n})
        (eps_a,) = self.context.predict(batch, self.conditioning(batch.templates))
        total = torch.zeros(len(eps_a), device=eps_a.device)
        for name, weights in self.weights.items():
            if self.settings.loss == "adv1":
                total = total + weights[batch.concepts] * losses.adv1(eps_a, known[name])
            else:
                total = total + weights[batch.concepts] * losses.adv2(eps_a, known[name], known["neutral"])
        return total / 2 if len(self.weights) > 1 else total

    def search(self, batch: Batch) -> None:
        """Up to `anchor_steps` steps on one batch; a concept that stops leaves it."""
        if self.settings.reset_anchor_optimizer:
            self.reset_optimizer()
        for _ in range(self.settings.anchor_steps):
            above = self.step(batch)
            if not above:
                break
            batch = batch.of(above)

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """eps0(x_t, e_a)."""
        return self.context.predict(batch, self.conditioning(batch.templates))[0]


def positions_in_table(own: list[Tensor], rows: list[int]) -> Tensor:
    """Each concept's positions (its templates, L) as positions in the table of all e_adv, one below the other."""
    firsts = accumulate(rows[:-1], initial=0)
    return torch.cat([p.where(p < 0, p + first) for p, first in zip(own, firsts, strict=True)])


def directions(context: Context) -> tuple[dict[str, Conditioning], dict[str, Tensor]]:
    """What the losses push away from, (templates, L, D), and with which weight, (concepts,): concept and attributes."""
    concepts = context.concepts
    counts = {len(concept.attributes) for concept in concepts}
    if len(counts) > 1:
        raise ValueError(f"concepts with {' and '.join(map(str, sorted(counts)))} attributes cannot share a pack")
    embeds, weights = {"concept": context.e_c}, {"concept": torch.ones(len(concepts), device=context.base.device)}
    for i in range(counts.pop()):
        names = [list(concept.attributes)[i] for concept in concepts]
        prompts = [fill(t, name) for concept, name in zip(concepts, names, strict=True) for t in concept.templates]
        with torch.no_grad():
            embeds[f"attribute {i}"] = context.encode(prompts)
        own = [concept.attributes[name] for concept, name in zip(concepts, names, strict=True)]
        weights[f"attribute {i}"] = torch.tensor(own, device=context.base.device)
    return embeds, weights


def erase(context: Context, settings: Settings) -> list[Erasure]:
    return erase_towards(Anchor(context, settings), context.latents(settings))


def erase_towards(anchor: Anchor, latents: Tensor) -> list[Erasure]:
    """Search and fine-tuning in the order of the anchor's strategy, on x_0 (concepts, num_latents, C, h, w)."""
    context, settings = anchor.context, anchor.settings
    batches = context.batches(settings, latents)

    def sweep(number: int) -> list[Batch]:
        return context.batches(settings, latents, number) if settings.redraw and number else batches

    def searched_target(batch: Batch) -> Tensor:
        anchor.search(batch)
        return anchor.target(batch)

    match settings.strategy:
        case "alternating":
            erasures = fit(context, settings, batches, searched_target)
        case "sequential":
            for i, batch in enumerate(batches):
                anchor.search(batch)
                context.report("anchor", i + 1, len(batches), 0.0)
            erasures = fit(context, settings, sweep(1), anchor.target)
        case "cyclical":
            for i in range(settings.anchor_steps):
                for batch in sweep(i):
                    anchor.step(batch)
                context.report("anchor", i + 1, settings.anchor_steps, 0.0)
            erasures = fit(context, settings, sweep(settings.anchor_steps), anchor.target)
    for erasure, e_adv, span in zip(erasures, anchor.e_adv, context.spans, strict=True):
        erasure.e_adv = e_adv.detach().cpu()
        erasure.facts |= distances(context, e_adv, span)
    return erasures


def distances(context: Context, e_adv: Tensor, templates: slice) -> dict[str, float]:
    """How far an anchor went: the mean norm of e_adv's rows, and relative to the concept's own embeddings."""
    inside = context.positions[templates] >= 0
    own = context.e_c.prompt_embeds[templates][inside].norm(dim=-1).mean()
    rows = e_adv.detach().norm(dim=-1)
    return {"e_adv_norm": rows.mean().item(), "e_adv_relative_norm": (rows.mean() / own).item()}
