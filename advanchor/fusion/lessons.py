"""What the one student of `distill` learns from: erased concepts, retained prompts and invented names."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.fusion.retained import Retained
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning, join
from advanchor.models.encoding import CHUNK
from advanchor.models.text import Prompt, fill
from advanchor.training.distillation import DistillSettings, Lesson
from advanchor.training.engine import Engine, derived_seed
from advanchor.training.inventions import Inventions, likeness
from advanchor.training.latents import default_cache, teacher_latents

NEUTRAL = 32  # pictures of each neutral prompt
SAME, OTHER = 0.1, 0.5  # `likeness` up to which an invention is the concept itself, and from which on it is another


@dataclass(frozen=True)
class Target:
    """A concept, and what its prompts become."""

    concept: Concept
    e_c: Conditioning  # (templates, L, D)
    e_a: Conditioning


class Teacher:
    """The base's pictures, as latents; those of before are in the cache."""

    def __init__(self, base: Base, engine: Engine, settings: DistillSettings) -> None:
        self.base, self.engine, self.settings = base, engine, settings

    def pictures(self, prompts: Sequence[str | Prompt], count: int, name: str) -> Tensor:
        """(count, C, h, w): picture i is of prompt i modulo their number."""
        return teacher_latents(
            self.base,
            self.engine,
            [prompt if isinstance(prompt, Prompt) else Prompt(prompt) for prompt in prompts],
            derived_seed(self.settings.seed, "distill", name),
            num_latents=count,
            num_steps=self.settings.latent_steps,
            guidance=self.settings.latent_guidance,
            cache=default_cache(),
        )

    def of_concept(self, concept: Concept) -> Tensor:
        """(num_latents, C, h, w)."""
        prompts = [fill(template, concept.name) for template in concept.templates]
        return self.pictures(prompts, self.settings.num_latents, concept.name)


def lessons(
    base: Base, engine: Engine, targets: Sequence[Target], retained: Retained, settings: DistillSettings
) -> list[Lesson]:
    """Erased, retained and, where any are asked for, invented prompts."""
    teacher, counts = Teacher(base, engine, settings), settings.rows
    generator = torch.Generator().manual_seed(derived_seed(settings.seed, "lessons"))
    rows = Rows.of(targets)
    told, drawings = retained_rows(teacher, retained)
    everybody = torch.cat([drawings, *(teacher.of_concept(target.concept) for target in targets)])
    found = []
    if counts[2]:
        inventions = Inventions(base, [target.concept for target in targets], retained.retain.exclude)
        invented, origins = inventions.draw(settings.inventions, generator)
        seed = derived_seed(settings.seed, "likeness")
        far = likeness(base, invented, rows.e_c.rows(origins), rows.e_a.rows(origins), seed)
        same, other = (far <= SAME).nonzero()[:, 0], (far >= OTHER).nonzero()[:, 0]
        rows = rows.with_wordings(invented.rows(same), origins[same])
        if len(other):
            found = [kept(invented.rows(other), torch.ones(len(other)), drawings[:0], everybody, counts[2])]
    weights = torch.tensor(list(retained.weights.values()))
    erased = erased_lesson(teacher, targets, rows, counts[0])
    return [erased, kept(told, weights, drawings, everybody, counts[1]), *found]


@dataclass(frozen=True)
class Rows:
    """Prompts of all targets, one after another."""

    e_c: Conditioning  # (rows, ...)
    e_a: Conditioning
    owners: Tensor  # (rows,): which target's
    weights: Tensor  # (rows,)

    @classmethod
    def of(cls, targets: Sequence[Target]) -> "Rows":
        owners = [number for number, target in enumerate(targets) for _ in range(len(target.e_c))]
        e_c, e_a = join(*(target.e_c for target in targets)), join(*(target.e_a for target in targets))
        return cls(e_c, e_a, torch.tensor(owners), torch.ones(len(owners)))

    def with_wordings(self, asked: Conditioning, origins: Tensor) -> "Rows":
        """With other wordings of some rows, all together drawn as often as all that are there already."""
        if not len(asked):
            return self
        weights = torch.full((len(asked),), len(self.owners) / len(asked))
        return Rows(
            join(self.e_c, asked),
            join(self.e_a, self.e_a.rows(origins)),
            torch.cat([self.owners, self.owners[origins]]),
            torch.cat([self.weights, weights]),
        )


def erased_lesson(teacher: Teacher, targets: Sequence[Target], rows: Rows, count: int) -> Lesson:
    """At each concept's own pictures, and at those of the neutral prompts."""
    own = [teacher.of_concept(target.concept) for target in targets]
    neutral = list(dict.fromkeys(prompt for target in targets for prompt in target.concept.neutral))
    others = teacher.pictures(neutral, NEUTRAL * len(neutral), "neutral")
    numbers = torch.arange(len(own) * len(own[0])).view(len(own), -1)
    return Lesson(rows.e_c, rows.e_a, rows.weights, torch.cat(own), numbers[rows.owners], others, count)


def kept(told: Conditioning, weights: Tensor, drawings: Tensor, everybody: Tensor, count: int) -> Lesson:
    """Prompts that mean what they meant, at their own pictures as far as there are some, and at everybody's."""
    latents = drawings if len(drawings) else everybody
    own = (torch.arange(len(told)) % len(latents)).unsqueeze(1)
    return Lesson(told, told, weights, latents, own, everybody, count)


@torch.no_grad()
def retained_rows(teacher: Teacher, retained: Retained) -> tuple[Conditioning, Tensor]:
    """Embeddings of all retained prompts, and pictures of the first of them."""
    prompts = list(retained.weights)
    parts = [teacher.base.encode(prompts[start : start + CHUNK]) for start in range(0, len(prompts), CHUNK)]
    count = min(len(prompts), teacher.settings.retained_latents)
    return join(*parts), teacher.pictures(prompts[:count], count, "retained")
