"""guarded_anchor, then trained against soft prompts: adversarial training, as AdvUnlearn's (Zhang et al. 2024).

A concept erased for its own words can often be brought back by others: a soft prompt e_s, vectors added to the token
embeddings of the concept and of what comes after it, makes the student draw it again. So after guarded_anchor's
training come rounds of

1. attack_steps steps on each of some new soft prompts, against the student as it is then, at the noisiest timesteps, on

       L_s = MSE( eps(x_t, e_s), noise );

2. round_steps steps of the student, in whose loss L soft prompts lead where the concept does, and sampled prompts e_p,
   which do not mention it, stay what they are:

       L + attack_weight * mean_s MSE( eps(x_t, e_s), target ) + sampled_weight * MSE( eps(x_t, e_p), eps0(x_t, e_p) ).

A projection would shield soft prompts from the edit too, so there is none unless asked for (retain_weight).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.methods import guarded_anchor
from advanchor.methods.far_anchor import FarAnchor, FarSettings
from advanchor.methods.strategies import erase_towards
from advanchor.models.conditioning import Conditioning, join
from advanchor.models.profile import sampled_prompts
from advanchor.training import losses
from advanchor.training.context import Batch, Context, Erasure
from advanchor.training.cost import Cost, predictions
from advanchor.training.engine import derived_seed, shard
from advanchor.training.loop import Term, fit, fit_cost
from advanchor.training.perturbation import SoftPrompt
from advanchor.training.projection import mentioned

VERSION = 1
PACKABLE = True
NOISY = 0.6  # soft prompts are searched at t above this share of the schedule, where they decide what a picture shows
problems = guarded_anchor.problems


class Settings(FarSettings):
    name: Literal["hardened_anchor"] = "hardened_anchor"
    rounds: int = Field(default=4, ge=1, description="how often the student is attacked and trained against it")
    round_steps: int = Field(default=40, ge=1, description="the student's steps of a round")
    attacks: int = Field(default=2, ge=1, description="soft prompts found per round, and used in each student step")
    attack_steps: int = Field(default=40, ge=1, description="steps on each soft prompt")
    attack_lr: float = Field(
        default=0.3, gt=0, description="their learning rate, in deviations of the token embeddings"
    )
    attack_weight: float = Field(default=1.0, gt=0, description="weight of soft prompts in the student's loss")
    sampled_weight: float = Field(default=3.0, ge=0, description="weight of sampled prompts in the student's loss")

    @property
    def unused(self) -> set[str]:
        """Retained prompts are sampled for the rounds as well."""
        return super().unused - {"retain_prompts"}


def soft_prompts(context: Context, settings: Settings, seed: str) -> SoftPrompt:
    """A fresh one for each concept, drawn with a standard deviation of attack_lr."""
    draws = [torch.Generator().manual_seed(derived_seed(own, seed)) for own in context.seeds]
    return SoftPrompt(context.base, context.per_concept(context.prompts), settings.attack_lr, draws)


def attack_loss(context: Context, soft_prompt: SoftPrompt, batch: Batch) -> Tensor:
    """L_s = MSE( eps(x_t, e_s), noise ), (concepts,)."""
    assert batch.ideal is not None
    with context.student():
        (eps,) = context.predict(batch, soft_prompt.rows_of(batch.templates))
    return losses.mse(eps, batch.ideal)


class Rounds:
    """The soft prompts that were found, and what each concept's steps draw, from its own seed."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self.context, self.settings = context, settings
        self.soft_prompts: list[Conditioning] = []  # e_s, a row per template as in Context.e_c
        prompts = sampled_prompts(context.base.profile.vocabulary, settings.retain_prompts, seed=0)
        self.retained = [[prompt for prompt in prompts if not mentioned(c, prompt)] for c in context.concepts]
        self.generators = [torch.Generator().manual_seed(derived_seed(seed, "rounds")) for seed in context.seeds]

    def attack(self, number: int, latents: Tensor) -> None:
        """Find the soft prompts of a round."""
        context, settings = self.context, self.settings.model_copy(update={"steps": self.settings.attack_steps})
        for i in range(settings.attacks):
            seed = f"soft prompt {number}.{i}"
            found = soft_prompts(context, settings, seed)
            for step, batch in enumerate(context.batches(settings, latents, seed, NOISY)):
                found.step(attack_loss(context, found, batch), batch.concepts, context.engine.mean)
                context.report("attack", step + 1, settings.steps, 0.0)
            with torch.no_grad():
                self.soft_prompts.append(found.rows_of(torch.arange(len(context.prompts))))

    def train(self, number: int, latents: Tensor, anchor: FarAnchor) -> list[Erasure]:
        settings = self.settings.model_copy(update={"steps": self.settings.round_steps})
        batches = self.context.batches(settings, latents, f"round {number}")
        return fit(self.context, settings, batches, anchor.target, self.terms)

    def terms(self, batch: Batch, target: Tensor) -> list[Term]:
        """Terms of a step: some soft prompts, to be erased, and a sampled prompt for every draw, to be retained."""
        attacks, weight = self.settings.attacks, self.settings.attack_weight / self.settings.attacks
        drawn = [torch.randperm(len(self.soft_prompts), generator=own)[:attacks].tolist() for own in self.generators]
        terms = [
            Term(self.soft_prompt_rows(chosen, batch.templates), target, weight) for chosen in zip(*drawn, strict=True)
        ]
        if self.settings.sampled_weight:
            with torch.no_grad():
                e_p = self.sampled(batch)
                (eps0_p,) = self.context.predict(batch, e_p)
            terms.append(Term(e_p, eps0_p, self.settings.sampled_weight))
        return terms

    def soft_prompt_rows(self, chosen: tuple[int, ...], templates: Tensor) -> Conditioning:
        """Rows (concepts, B) of one soft prompt for each concept."""
        return join(*(self.soft_prompts[i].rows(own[None]) for i, own in zip(chosen, templates, strict=True)))

    def sampled(self, batch: Batch) -> Conditioning:
        """Rows (concepts, B) of prompts that do not mention the concept."""
        engine, size = self.context.engine, self.settings.batch_size
        mine, prompts = shard(size, engine.rank, engine.world_size), []
        for own, generator in zip(self.retained, self.generators, strict=True):
            prompts += [own[i] for i in torch.randint(len(own), (size,), generator=generator)[mine].tolist()]
        return self.context.base.encode(prompts).rows(torch.arange(len(prompts)).view(batch.templates.shape))


def erase(context: Context, settings: Settings) -> list[Erasure]:
    anchor, latents = FarAnchor(context, settings), context.latents(settings)
    erasures, rounds = erase_towards(anchor, latents), Rounds(context, settings)
    for number in range(settings.rounds):
        rounds.attack(number, latents)
        last = rounds.train(number, latents, anchor)
    for erasure, own in zip(erasures, last, strict=True):  # the last round's delta; the anchor is guarded_anchor's
        erasure.delta, erasure.facts = own.delta, erasure.facts | own.facts
    return erasures


def cost(settings: Settings, concept: Concept) -> Cost:
    """guarded_anchor's, and per round the steps on soft prompts and the student's with their extra terms."""
    size, sampled = settings.batch_size, settings.sampled_weight > 0
    found = predictions(settings.attacks * settings.attack_steps * size, learned=1)
    trained = fit_cost(settings.model_copy(update={"steps": settings.round_steps}), target=2)
    further = predictions(settings.round_steps * size, teacher=sampled, learned=settings.attacks + sampled)
    own = found + trained + further
    return guarded_anchor.cost(settings, concept) + settings.rounds * own
