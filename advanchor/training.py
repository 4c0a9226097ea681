"""What trained methods share: the draws of a pack of concepts, the teacher's predictions, and the one training loop.

A pack is one concept or several that are erased at once through one backbone, each with its own anchor and its own slot
of the delta. Whoever its companions are, a concept's draws come from its own seed, its loss is its own mean, and the
optimizer works element by element: a pack of K gives what K erasures alone give, up to rounding.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from advanchor import losses
from advanchor.concepts import Concept
from advanchor.delta import Delta
from advanchor.diffusion import Conditioning, add_noise, join, predict_noise, stack
from advanchor.engine import Engine, derived_seed, shard
from advanchor.latents import LatentCache, teacher_latents
from advanchor.models.base import Base
from advanchor.text import Prompt, fill


class TrainingSettings(BaseModel):
    """Settings of every method that fine-tunes the student."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="which method these are settings of")
    trained_weights: Literal["cross_attention", "cross_attention_kv"] = Field(
        default="cross_attention_kv", description="which weights learn; only the kv ones can be fused in closed form"
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


@dataclass
class Erasure:
    """What a method leaves behind of one concept."""

    delta: dict[str, Tensor]  # dW and db by the name of the base's tensor, float32 on the CPU
    trained_weights: str
    e_adv: Tensor | None = None  # (rows, D), float32 on the CPU; of adv_anchor only
    facts: dict[str, float] = field(default_factory=dict)  # what the method has to say of itself: norms, last losses


@dataclass
class Batch:
    """This rank's rows of one global draw, B for each concept, and the teacher's predictions that stay the same."""

    noisy_latents: Tensor  # (concepts, B, C, h, w)
    timesteps: Tensor  # (concepts, B)
    templates: Tensor  # (concepts, B) which row of the pack's embeddings: a template of the concept's own
    concepts: list[int]  # which of the pack's
    noise: Tensor | None = None  # (concepts, B, C, h, w) what was added to x_0, where it is known
    constants: dict[str, Tensor] = field(default_factory=dict)  # prompt set -> eps0 (concepts, B, C, h, w)

    def of(self, concepts: list[int]) -> "Batch":
        """The same draw for some of its concepts only."""
        if concepts == self.concepts:
            return self
        kept = [self.concepts.index(number) for number in concepts]
        constants = {name: eps0[kept] for name, eps0 in self.constants.items()}
        noise = None if self.noise is None else self.noise[kept]
        return Batch(self.noisy_latents[kept], self.timesteps[kept], self.templates[kept], concepts, noise, constants)


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
        self.base, self.engine, self.delta, self.report, self.cache = base, engine, delta, report, cache
        self.concepts, self.seeds = list(concepts), list(seeds)
        self.spans = [slice(*ends) for ends in pairwise(accumulate((len(c.templates) for c in concepts), initial=0))]
        self.prompts: list[Prompt] = [fill(template, c.name) for c in concepts for template in c.templates]
        self.positions = torch.cat([base.concept_tokens(own) for own in self.per_concept(self.prompts)])  # (rows, L)
        with torch.no_grad():
            self.e_c = self.encode(self.prompts)
            self.e_n = self.encode([neutral for c in concepts for neutral in c.neutral])
            self.null = base.encode([""])

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
        """The draws of one sweep, one per student step; the same global plan on every number of ranks.

        `latents`: (concepts, num_latents, C, h, w); t is uniform over the schedule, from a share of it on.
        """
        plans = [self.plan(number, settings, own, sweep, earliest) for number, own in enumerate(latents)]
        everyone = list(range(len(plans)))
        drawn = []
        for draws in zip(*plans, strict=True):
            noisy, timesteps, templates, noise = map(torch.stack, zip(*draws, strict=True))
            drawn.append(Batch(noisy, timesteps, templates, everyone, noise))
        return drawn

    def plan(
        self, number: int, settings: TrainingSettings, latents: Tensor, sweep: int | str, earliest: float
    ) -> list[tuple[Tensor, ...]]:
        """One concept's x_t, t, rows of templates and noise for every step, this rank's B of each."""
        generator = torch.Generator().manual_seed(derived_seed(self.seeds[number], "batches", sweep))
        mine = shard(settings.batch_size, self.engine.rank, self.engine.world_size)
        num_templates, drawn = len(self.concepts[number].templates), []
        last = self.base.schedule.num_train_timesteps
        for _ in range(settings.steps):
            size = (settings.batch_size,)
            images = torch.randint(len(latents), size, generator=generator)[mine].to(latents.device)
            timesteps = torch.randint(int(earliest * last), last, size, generator=generator)[mine]
            templates = torch.randint(num_templates, size, generator=generator)[mine].to(latents.device)
            noise = torch.randn(*size, *latents.shape[1:], generator=generator)[mine].to(latents.device)
            timesteps = timesteps.to(latents.device)
            noisy = add_noise(self.base.schedule, latents[images], noise, timesteps)
            drawn.append((noisy, timesteps, self.spans[number].start + templates, noise))
        return drawn

    def predict(self, batch: Batch, *conditionings: Conditioning) -> tuple[Tensor, ...]:
        """eps(x_t, e), (concepts, B, C, h, w), of each of several e of (concepts, B) rows, in one forward.

        The rows of that forward lie concept by concept, as Delta.on wants them.
        """
        concepts, copies = len(batch.timesteps), len(conditionings)
        noisy = torch.stack([batch.noisy_latents] * copies, 1).flatten(0, 2)
        timesteps = torch.stack([batch.timesteps] * copies, 1).flatten()
        eps = predict_noise(self.engine.module, self.base.schedule, noisy, timesteps, stack(*conditionings))
        return eps.unflatten(0, (concepts, copies, -1)).unbind(1)

    @torch.no_grad()
    def teacher_constants(self, batch: Batch, prompt_sets: dict[str, Conditioning]) -> dict[str, Tensor]:
        """eps0 of a batch for sets of prompts (one row per template), predicted once, in one forward."""
        missing = [name for name in prompt_sets if name not in batch.constants]
        if missing:
            rows = (prompt_sets[name].rows(batch.templates) for name in missing)
            batch.constants |= zip(missing, self.predict(batch, *rows), strict=True)
        return batch.constants


@dataclass(frozen=True)
class Term:
    """A part of the student's loss: weight * MSE( eps(x_t, e), wanted )."""

    conditioning: Conditioning  # e, rows of (concepts, B)
    wanted: Tensor  # (concepts, B, C, h, w)
    weight: float = 1.0


def fit(
    context: Context,
    settings: TrainingSettings,
    batches: Iterable[Batch],
    target: Callable[[Batch], Tensor],  # a batch -> what the student is to predict for the concepts
    further: Callable[[Batch, Tensor], Sequence[Term]] = lambda batch, wanted: (),
) -> list[Erasure]:
    """Fine-tune the student, one step per batch, on each concept's

    L = MSE( eps(x_t, e_c), target ) + preserve_weight * MSE( eps(x_t, e_n), eps0(x_t, e_n) ) + further terms.

    The concepts' losses are summed, so that each one's gradient is what it is alone.
    """
    loss = torch.zeros(len(context.concepts))
    for step, batch in enumerate(batches):
        wanted = target(batch)
        terms = [Term(context.e_c.rows(batch.templates), wanted)]
        if settings.preserve_weight:
            eps0_n = context.teacher_constants(batch, {"neutral": context.e_n})["neutral"]
            terms.append(Term(context.e_n.rows(batch.templates), eps0_n, settings.preserve_weight))
        terms += further(batch, wanted)
        with context.student():
            predicted = context.predict(batch, *(term.conditioning for term in terms))
        parts = [term.weight * losses.mse(eps, term.wanted) for eps, term in zip(predicted, terms, strict=True)]
        loss = torch.stack(parts).sum(0)
        context.engine.backward(loss.sum())
        context.engine.step()
        context.report("student", step + 1, settings.steps, float(loss.detach().mean()))
    final = context.engine.mean(loss.detach()).tolist()
    return erasures(context, settings.trained_weights, [{"student_loss": value} for value in final])


def erasures(context: Context, trained_weights: str, facts: Sequence[dict[str, float]] = ()) -> list[Erasure]:
    """What the engine now holds in each concept's slot, with what there is to say of each."""
    stacked = context.engine.export()
    return [
        Erasure({name: tensor[slot].clone() for name, tensor in stacked.items()}, trained_weights, facts=dict(own))
        for slot, own in enumerate(facts or [{}] * len(context.concepts))
    ]
