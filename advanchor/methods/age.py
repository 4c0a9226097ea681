"""Adaptive Guided Erasure (Bui et al. 2025, arXiv 2501.18950): the anchor is searched among other concepts.

The anchor is a mixture of candidates k. The search looks for those that the erasure damages most:

    e_a = sum_k pi_k e_k,    pi = softmax of the `top` largest (z + gumbel noise) / temperature, 0 elsewhere

After `search_steps` steps of z up the second term of L, the student takes one step down L:

    L = MSE( eps(x_t, e_c), eps0(x_t, e_a) ) + kept_weight * MSE( eps(x_t, e_a), eps0(x_t, e_a) )

As in the authors' script, z is moved by the second term alone. Their x_t is what the student itself samples; here it is
what the teacher drew of the concept, as in every other trained method but esd.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.conditioning import Conditioning
from advanchor.models.profile import sampled_prompts
from advanchor.models.text import fill
from advanchor.training import losses
from advanchor.training.context import Batch, Context, Erasure, TrainingSettings
from advanchor.training.cost import Cost, predictions, sampling
from advanchor.training.engine import derived_seed
from advanchor.training.loop import Term, fit, fit_cost
from advanchor.training.projection import mentioned

VERSION = 1
PACKABLE = True


class Settings(TrainingSettings):
    name: Literal["age"] = "age"
    candidates: tuple[str, ...] = Field(
        default=(), description="names that the anchor is mixed of, in the concept's own templates; default: prompts"
    )
    candidate_prompts: int = Field(
        default=100, ge=2, description="without names: how many prompts of the base's own world it is mixed of"
    )
    search_steps: int = Field(default=1, ge=0, description="steps on the mixture before each step of the student")
    search_lr: float = Field(default=1e-2, gt=0, description="learning rate of the mixture's logits (Adam)")
    temperature: float = Field(default=2.0, gt=0, description="of the Gumbel softmax")
    top: int = Field(default=5, ge=1, description="how many candidates a mixture has at most")
    kept_weight: float = Field(default=1.0, ge=0, description="weight of the mixture's own prediction in the loss")
    preserve_weight: float = Field(default=0.0, ge=0, description="the original has no such term")


class Mixture:
    """The logits z (candidates,) of each concept, and its candidates' embeddings, a row for each of its templates."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self.context, self.settings = context, settings
        self.candidates = [candidates(context, number, settings) for number in range(len(context.concepts))]
        counts = [len(own) for own in self.candidates]
        self.logits = [torch.full((n,), 1 / n, device=context.base.device, requires_grad=True) for n in counts]
        self.optimizer = torch.optim.Adam(self.logits, lr=settings.search_lr)
        self.generators = [torch.Generator().manual_seed(derived_seed(seed, "gumbel")) for seed in context.seeds]
        self.e_a = context.e_n  # the last draw

    def weights(self, number: int) -> Tensor:
        """One draw of pi (candidates,) for a concept."""
        logits, settings = self.logits[number], self.settings
        uniform = torch.rand(len(logits), generator=self.generators[number]).clamp(1e-10, 1 - 1e-7)
        gumbel = -(-uniform.log()).log()
        drawn = (logits + gumbel.to(logits.device)) / settings.temperature
        smallest = drawn.detach().topk(min(settings.top, len(drawn))).values[-1]
        return drawn.masked_fill(drawn < smallest, -torch.inf).softmax(0)

    def draw(self, templates: Tensor) -> Conditioning:
        """e_a of templates (concepts, B), one draw of pi for each concept."""
        own = [
            mixed(self.candidates[number], self.weights(number), rows - self.context.spans[number].start)
            for number, rows in enumerate(templates)
        ]
        added = {key: torch.stack([one.added[key] for one in own]) for key in own[0].added}
        return Conditioning(torch.stack([one.prompt_embeds for one in own]), added)

    def target(self, batch: Batch) -> Tensor:
        """eps0(x_t, e_a) of a new draw of e_a, after the search."""
        self.search(batch)
        with torch.no_grad():
            self.e_a = self.draw(batch.templates)
            return self.context.predict(batch, self.e_a)[0]

    def search(self, batch: Batch) -> None:
        """Steps towards the mixture whose prediction the student has changed most."""
        context = self.context
        for _ in range(self.settings.search_steps):
            e_a = self.draw(batch.templates)
            with torch.no_grad():
                (eps0_a,) = context.predict(batch, e_a)
            with context.student():
                (eps_a,) = context.predict(batch, e_a)
            gradients = torch.autograd.grad(-losses.mse(eps_a, eps0_a).sum(), self.logits)
            for own, gradient in zip(self.logits, gradients, strict=True):
                own.grad = context.engine.mean(gradient)
            self.optimizer.step()


@torch.no_grad()
def candidates(context: Context, number: int, settings: Settings) -> list[Conditioning]:
    """The embeddings (templates, L, D) of what one concept's anchor is mixed of."""
    concept = context.concepts[number]
    names = [name for name in settings.candidates if name != concept.name]
    if names:
        sets = [[fill(template, name).text for template in concept.templates] for name in names]
    else:
        known = sampled_prompts(context.base.profile.vocabulary, settings.candidate_prompts, seed=0)
        sets = [[prompt] * len(concept.templates) for prompt in known if not mentioned(concept, prompt)]
    return [context.base.encode(prompts) for prompts in sets]


def mixed(parts: list[Conditioning], weights: Tensor, rows: Tensor) -> Conditioning:
    """sum_k weights_k parts_k at some rows (B, L, D); a token is read where any part that is mixed in reads it."""
    chosen = weights.nonzero().flatten().tolist()
    shares = [(weights[k], parts[k].rows(rows)) for k in chosen]
    added = {key: torch.stack([share * one.added[key] for share, one in shares]).sum(0) for key in parts[0].added}
    for key in added.keys() - {"pooled"}:  # a mask, or sizes that all have
        added[key] = torch.stack([one.added[key] for _, one in shares]).amax(0)
    return Conditioning(torch.stack([share * one.prompt_embeds for share, one in shares]).sum(0), added)


def erase(context: Context, settings: Settings) -> list[Erasure]:
    mixture = Mixture(context, settings)

    def kept(batch: Batch, wanted: Tensor) -> list[Term]:
        return [Term(mixture.e_a, wanted, settings.kept_weight)] if settings.kept_weight else []

    return fit(context, settings, context.batches(settings, context.latents(settings)), mixture.target, kept)


def cost(settings: Settings, concept: Concept) -> Cost:
    """The search's predictions by teacher and student, and the second term's of the student."""
    draws = settings.steps * settings.batch_size
    searched = predictions(draws * settings.search_steps, teacher=1, learned=1)
    further = predictions(draws, learned=int(settings.kept_weight > 0))
    return sampling(settings.num_latents, settings.latent_steps) + searched + further + fit_cost(settings, target=1)


def problems(settings: Settings, concept: Concept) -> list[str]:
    named = [name for name in settings.candidates if name != concept.name]
    return [] if len(named) >= 2 or not settings.candidates else ["candidates: two or more other names are needed"]
