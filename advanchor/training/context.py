"""What trained methods share: the draws of a pack of concepts, and the teacher's predictions.

A pack is one concept or several that are erased at once through one backbone, each with its own anchor and its own slot
of the delta. Whoever its companions are, a concept's draws come from its own seed, its loss is its own mean, and the
optimizer works element by element: a pack of K gives what K erasures alone give, up to rounding.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning, join, stack
from advanchor.models.readers import READERS_ONLY
from advanchor.models.schedule import add_noise
from advanchor.models.text import Prompt, fill
from advanchor.settings import Section
from advanchor.training.delta import Delta
from advanchor.training.engine import Engine, derived_seed, shard
from advanchor.training.finite import watched
from advanchor.training.latents import LatentCache, teacher_latents

TrainedWeights = Literal["cross_attention_kv", "cross_attention", "readers", "text_kv", "pooled"]


class TrainingSettings(Section):
    """Settings of every method that fine-tunes the student."""

    name: str = Field(description="which method these are settings of")
    trained_weights: TrainedWeights = Field(
        default="cross_attention_kv",
        description="which weights learn, of those that the base has; if it is not set, those that read its prompts",
    )
    steps: int = Field(default=50, ge=1, description="optimizer steps of the student, one batch each")
    lr: float = Field(default=1e-5, gt=0, description="learning rate of the student (Adam)")
    batch_size: int = Field(default=4, ge=1, description="draws of (image, noise, timestep, template) in a batch")
    preserve_weight: float = Field(default=10.0, ge=0, description="weight of the neutral prompt's term in the loss")
    redraw: bool = Field(
        default=False, description="draw the batches afresh at every sweep, as the authors' scripts do"
    )
    num_latents: int = Field(default=64, ge=1, description="images of the concept sampled from the teacher, as latents")
    latent_prompts: Literal["templates", "concept"] = Field(default="templates", description="prompts of those images")
    latent_steps: int = Field(default=20, ge=1, description="sampling steps of those images")
    latent_guidance: float = Field(default=3.0, ge=0, description="their classifier-free guidance scale")
    retain_weight: float = Field(
        default=0.0, ge=0, description="gamma of the projection that the student learns behind; 0: no projection"
    )
    retain_prompts: int = Field(default=1000, ge=1, description="prompts of the base's own world that are retained")
    retain_without: tuple[str, ...] = Field(
        default=(), description="names that the projection is not told of: none of its prompts mentions them"
    )
    ridge: float = Field(default=1e-5, gt=0, description="lambda of the projection, as a share of the mean eigenvalue")

    @property
    def unused(self) -> set[str]:
        """Settings that decide nothing beside the others: without a projection, those of the projection."""
        if not self.retain_weight:
            return {"retain_weight", "retain_prompts", "retain_without", "ridge"}
        return set() if self.retain_without else {"retain_without"}

    @model_validator(mode="after")
    def check_projection(self) -> Self:
        if self.retain_weight and self.trained_weights not in READERS_ONLY:
            raise ValueError(
                f"retain_weight: {self.retain_weight:g} goes with trained_weights: {' or '.join(READERS_ONLY)}, not "
                f"{self.trained_weights}: only what reads prompt embeddings can be projected"
            )
        return self


@dataclass
class Erasure:
    """What a method leaves behind of one concept."""

    delta: dict[str, Tensor]  # dW and db by the name of the base's tensor, float32 on the CPU
    trained_weights: str
    e_adv: Tensor | None = None  # (rows, D), float32 on the CPU; of methods that learn an anchor
    pooled_adv: Tensor | None = None  # (D_pooled,), likewise; where the anchor's pooled vector was learned as well
    facts: dict[str, float] = field(default_factory=dict)  # what the method has to say of itself: norms, last losses

    @property
    def anchor(self) -> dict[str, Tensor | None]:
        """What an anchor file holds, by name."""
        return {"e_adv": self.e_adv, "pooled_adv": self.pooled_adv}


@dataclass
class Batch:
    """This rank's rows of one global draw, B for each concept, and the teacher's predictions for it, each made once."""

    noisy_latents: Tensor  # (concepts, B, C, h, w)
    timesteps: Tensor  # (concepts, B)
    templates: Tensor  # (concepts, B) which row of the pack's embeddings: a template of the concept's own
    concepts: list[int]  # which of the pack's
    ideal: Tensor | None = None  # (concepts, B, C, h, w) what a perfect model predicts, where x_0 is known
    constants: dict[str, Tensor] = field(
        default_factory=dict
    )  # prompt set -> the teacher's prediction (concepts, B, C, h, w)

    def of(self, concepts: list[int]) -> "Batch":
        """The same draw for some of its concepts only."""
        if concepts == self.concepts:
            return self
        kept = [self.concepts.index(number) for number in concepts]
        constants = {name: own[kept] for name, own in self.constants.items()}
        ideal = None if self.ideal is None else self.ideal[kept]
        return Batch(self.noisy_latents[kept], self.timesteps[kept], self.templates[kept], concepts, ideal, constants)


Report = Callable[[str, int, int, float], None]  # phase, step, of how many, loss; may raise to stop the task


def ignore(phase: str, step: int, total: int, loss: float) -> None: ...


class Context:
    """A pack of concepts on one engine: everything a method may ask for. The delta is off unless a call says student.

    Embeddings have one row per template, concept after concept: concept k's rows are spans[k].
    """

    def __init__(
        self,
        base: Base,
        engine: Engine,
        delta: Delta,
        concepts: Sequence[Concept],
        seeds: Sequence[int],
        report: Report = ignore,
        cache: LatentCache | None = None,
    ) -> None:
        """Concept k has the seed seeds[k] and the slot k. ValueError if the delta has fewer slots."""
        if len(concepts) > delta.slots:
            raise ValueError(f"{len(concepts)} concepts do not fit into a delta of {delta.slots} slots")
        self.base, self.engine, self.delta, self.report, self.cache = base, engine, delta, watched(report), cache
        self.concepts, self.seeds = list(concepts), list(seeds)
        self.spans = [slice(*ends) for ends in pairwise(accumulate((len(c.templates) for c in concepts), initial=0))]
        self.prompts: list[Prompt] = [fill(template, c.name) for c in concepts for template in c.templates]
        self.positions = torch.cat([base.concept_tokens(own) for own in self.per_concept(self.prompts)])  # (rows, L)
        with torch.no_grad():
            self.e_c = self.encode(self.prompts)
            self.e_n = self.encode([neutral for c in concepts for neutral in c.neutral])
            self.null = base.unconditional()

    def per_concept(self, rows: list) -> list[list]:
        return [rows[span] for span in self.spans]

    def encode(self, prompts: list) -> Conditioning:
        """Embeddings of one prompt per row, encoded concept by concept: a batch's size may change a product's bits."""
        return join(*(self.base.encode(own) for own in self.per_concept(prompts)))

    def student(self) -> AbstractContextManager:
        """Inside this block every concept's rows meet their own slot of the delta."""
        return self.delta.on(slots=slice(len(self.concepts)))

    def latents(self, settings: TrainingSettings) -> Tensor:
        """x_0 (concepts, num_latents, C, h, w): images of each concept, by the teacher or from the cache."""
        return torch.stack([self.latents_of(number, settings) for number in range(len(self.concepts))])

    def latents_of(self, number: int, settings: TrainingSettings) -> Tensor:
        """x_0 (num_latents, C, h, w) of one concept."""
        own = self.per_concept(self.prompts)[number]
        prompts = own if settings.latent_prompts == "templates" else [Prompt(self.concepts[number].name)]
        return teacher_latents(
            self.base,
            self.engine,
            prompts,
            self.seeds[number],
            num_latents=settings.num_latents,
            num_steps=settings.latent_steps,
            guidance=settings.latent_guidance,
            cache=self.cache,
        )

    def batches(
        self, settings: TrainingSettings, latents: Tensor, sweep: int | str = 0, earliest: float = 0.0
    ) -> list[Batch]:
        """The draws of one sweep, a Batch per student step; the same global plan on every number of ranks.

        latents: (concepts, num_latents, C, h, w). sweep: names the draws: another one gives other draws. earliest: t is
        above this share of the schedule, and as the base's own sampler visits it.
        """
        plans = [self.plan(number, settings, own, sweep, earliest) for number, own in enumerate(latents)]
        everyone = list(range(len(plans)))
        drawn = []
        for draws in zip(*plans, strict=True):
            noisy, timesteps, templates, ideal = map(torch.stack, zip(*draws, strict=True))
            drawn.append(Batch(noisy, timesteps, templates, everyone, ideal))
        return drawn

    def plan(
        self, number: int, settings: TrainingSettings, latents: Tensor, sweep: int | str, earliest: float
    ) -> list[tuple[Tensor, ...]]:
        """One concept's x_t, t, rows of templates and ideal predictions for every step, this rank's B of each."""
        generator = torch.Generator().manual_seed(derived_seed(self.seeds[number], "batches", sweep))
        mine = shard(settings.batch_size, self.engine.rank, self.engine.world_size)
        num_templates, drawn = len(self.concepts[number].templates), []
        schedule = self.base.schedule
        for _ in range(settings.steps):
            size = (settings.batch_size,)
            images = torch.randint(len(latents), size, generator=generator)[mine].to(latents.device)
            timesteps = schedule.draw(size, generator, earliest)[mine]
            templates = torch.randint(num_templates, size, generator=generator)[mine].to(latents.device)
            noise = torch.randn(*size, *latents.shape[1:], generator=generator)[mine].to(latents.device)
            timesteps = timesteps.to(latents.device)
            noisy = add_noise(schedule, latents[images], noise, timesteps)
            ideal = schedule.ideal(latents[images], noise)
            drawn.append((noisy, timesteps, self.spans[number].start + templates, ideal))
        return drawn

    def predict(self, batch: Batch, *conditionings: Conditioning) -> tuple[Tensor, ...]:
        """Predictions for x_t and each of several e of (concepts, B) rows, (concepts, B, C, h, w), in one forward.

        They are in the space of the losses: eps, or v of a flow. The rows of that forward lie concept by concept, as
        Delta.on wants them.
        """
        concepts, copies = len(batch.timesteps), len(conditionings)
        noisy = torch.stack([batch.noisy_latents] * copies, 1).flatten(0, 2)
        timesteps = torch.stack([batch.timesteps] * copies, 1).flatten()
        predicted = self.base.predict(self.engine.module, noisy, timesteps, stack(*conditionings))
        return predicted.unflatten(0, (concepts, copies, -1)).unbind(1)

    def eps_of(self, batch: Batch, prediction: Tensor) -> Tensor:
        """The noise that a prediction for a batch amounts to, both (concepts, B, C, h, w)."""
        flat = (part.flatten(0, 1) for part in (prediction, batch.noisy_latents, batch.timesteps))
        return self.base.schedule.noise(*flat).view_as(prediction)

    @torch.no_grad()
    def teacher_constants(self, batch: Batch, prompt_sets: dict[str, Conditioning]) -> dict[str, Tensor]:
        """The teacher's predictions of a batch for sets of prompts (a row per template), made once, in one forward."""
        missing = [name for name in prompt_sets if name not in batch.constants]
        if missing:
            rows = (prompt_sets[name].rows(batch.templates) for name in missing)
            batch.constants |= zip(missing, self.predict(batch, *rows), strict=True)
        return batch.constants
