"""guarded_anchor, then trained against soft prompts: adversarial training, as AdvUnlearn's (Zhang et al. 2024).

What is erased for the concept's own words can often be had otherwise: a soft prompt e_s, vectors added to the token
embeddings of the concept and of what comes after it, makes the student draw it again. So after guarded_anchor's
training come rounds of

1. attack_steps steps on each of some new soft prompts, against the student as it is then, at the noisiest timesteps, on

       L_s = MSE( eps(x_t, e_s), noise );

2. round_steps steps of the student, in whose loss L soft prompts lead where the concept does, and sampled prompts e_p,
   which do not mention it, stay what they are:

       L + attack_weight * mean_s MSE( eps(x_t, e_s), target ) + sampled_weight * MSE( eps(x_t, e_p), eps0(x_t, e_p) ).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor import losses
from advanchor.diffusion import Conditioning, join
from advanchor.engine import derived_seed, shard
from advanchor.methods import guarded_anchor
from advanchor.methods.adv_anchor import Perturbation, erase_towards
from advanchor.methods.guarded_anchor import FarAnchor, behind_guards, mentioned
from advanchor.retained import own_vocabulary, sampled_prompts
from advanchor.training import Batch, Context, Erasure, Term, fit

VERSION = 1
PACKABLE = True
NOISY = 0.6  # soft prompts are searched at t above this share of the schedule, where they decide what a picture shows


class Settings(guarded_anchor.Settings):
    name: Literal["hardened_anchor"] = "hardened_anchor"  # type: ignore[assignment]
    retain_weight: float = Field(
        default=0.0, ge=0, description="gamma of the guard, which leaves soft prompts alone as well; 0: none"
    )
    rounds: int = Field(default=4, ge=1, description="how often the student is attacked and trained against it")
    round_steps: int = Field(default=40, ge=1, description="the student's steps of a round")
    attacks: int = Field(default=2, ge=1, description="soft prompts of a round, and of each of the student's steps")
    attack_steps: int = Field(default=40, ge=1, description="steps on each soft prompt")
    attack_lr: float = Field(default=0.3, gt=0, description="their learning rate, in deviations of token embeddings")
    attack_weight: float = Field(default=1.0, gt=0, description="weight of soft prompts in the student's loss")
    sampled_weight: float = Field(default=3.0, ge=0, description="weight of sampled prompts in the student's loss")


class SoftPrompt(Perturbation):
    """Vectors before the text encoder, also on the tokens after the concept, by which the student draws it again."""

    def __init__(self, context: Context, settings: Settings, seed: str) -> None:
        size = settings.attack_lr * context.base.text_encoder.get_input_embeddings().weight.float().std().item()
        where = {"perturb_space": "token_embeds", "perturb_tokens": "concept_and_later"}
        super().__init__(context, settings.model_copy(update=where | {"anchor_lr": size, "anchor_init": size}), seed)

    def loss(self, batch: Batch) -> Tensor:
        """MSE( eps(x_t, e_s), noise ), (concepts,)."""
        assert batch.noise is not None
        with self.context.student():
            (eps,) = self.context.predict(batch, self.conditioning(batch.templates))
        return losses.mse(eps, batch.noise)

    @torch.no_grad()
    def found(self) -> Conditioning:
        """e_s, a row per template as in Context.e_c."""
        everyone = torch.arange(len(self.context.prompts), device=self.positions.device)
        return self.conditioning(everyone[None]).rows(torch.tensor(0))


class Rounds:
    """The soft prompts that were found, and what each concept's steps draw, from its own seed."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self.context, self.settings = context, settings
        self.soft_prompts: list[Conditioning] = []
        prompts = sampled_prompts(own_vocabulary(context.base.name), settings.retain_prompts, seed=0)
        self.retained = [[prompt for prompt in prompts if not mentioned(c, prompt)] for c in context.concepts]
        self.generators = [torch.Generator().manual_seed(derived_seed(seed, "rounds")) for seed in context.seeds]

    def attack(self, number: int, latents: Tensor) -> None:
        """Find the soft prompts of a round."""
        settings = self.settings.model_copy(update={"steps": self.settings.attack_steps})
        for i in range(settings.attacks):
            seed = f"soft prompt {number}.{i}"
            soft_prompt = SoftPrompt(self.context, settings, seed)
            for step, batch in enumerate(self.context.batches(settings, latents, seed, NOISY)):
                soft_prompt.step(batch)
                self.context.report("attack", step + 1, settings.steps, 0.0)
            self.soft_prompts.append(soft_prompt.found())

    def train(self, number: int, latents: Tensor, anchor: FarAnchor) -> list[Erasure]:
        settings = self.settings.model_copy(update={"steps": self.settings.round_steps})
        batches = self.context.batches(settings, latents, f"round {number}")
        return fit(self.context, settings, batches, anchor.target, self.terms)

    def terms(self, batch: Batch, target: Tensor) -> list[Term]:
        """Of a step: some soft prompts, to be erased, and a sampled prompt for every draw, to be kept."""
        attacks, weight = self.settings.attacks, self.settings.attack_weight / self.settings.attacks
        drawn = [torch.randperm(len(self.soft_prompts), generator=own)[:attacks].tolist() for own in self.generators]
        terms = [Term(self.of_each(chosen, batch.templates), target, weight) for chosen in zip(*drawn, strict=True)]
        if self.settings.sampled_weight:
            with torch.no_grad():
                e_p = self.sampled(batch)
                (eps0_p,) = self.context.predict(batch, e_p)
            terms.append(Term(e_p, eps0_p, self.settings.sampled_weight))
        return terms

    def of_each(self, chosen: tuple[int, ...], templates: Tensor) -> Conditioning:
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

    def train() -> list[Erasure]:
        erasures, rounds = erase_towards(anchor, latents), Rounds(context, settings)
        for number in range(settings.rounds):
            rounds.attack(number, latents)
            last = rounds.train(number, latents, anchor)
        for erasure, own in zip(erasures, last, strict=True):
            erasure.delta, erasure.facts = own.delta, erasure.facts | own.facts
        return erasures

    return behind_guards(context, settings, train)
