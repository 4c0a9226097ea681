"""Retained prompts: what a fused model must still say as the base does, and how much each of them weighs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from advanchor.batch import yaml_lines
from advanchor.batch.sources import MAX_BATCH, SourceError, read_text
from advanchor.batch.spec import BatchError
from advanchor.concepts import Concept
from advanchor.messages import choice, field, reason, shown
from advanchor.models.profile import profile_of, sampled_prompts, vocabularies
from advanchor.models.vocabulary import mentions
from advanchor.settings import Section


class WeightedPrompt(Section):
    prompt: str = Field(description="a prompt that must keep its meaning")
    weight: float = Field(default=1.0, gt=0, description="how many ordinary prompts it counts for")


class Retain(Section):
    """What to retain, as a user writes it in retain.yaml."""

    prompts: tuple[str | WeightedPrompt, ...] = Field(default=(), description="prompts, each with an optional weight")
    presets: tuple[str, ...] = Field(default=(), description="vocabularies that prompts are sampled from")
    count: int = Field(default=2000, ge=1, description="prompts sampled from each preset")
    seed: int = Field(default=0, ge=0, description="decides the sampling")
    exclude: tuple[str, ...] = Field(default=(), description="names that sampled prompts do not mention")

    @field_validator("presets")
    @classmethod
    def check(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for preset in value:
            if preset not in vocabularies():
                raise ValueError(choice(preset, vocabularies()))
        return value


def default_retain(base_digest: str) -> Retain:
    """The base's own vocabulary of prompts."""
    return Retain(presets=(profile_of(base_digest).vocabulary,))


def read_retain(path: Path) -> Retain:
    """A retain.yaml. Raises BatchError with the place of every mistake."""
    try:
        document = yaml_lines.parse(read_text(path, MAX_BATCH))
    except SourceError as error:
        raise BatchError([str(error)]) from error
    except yaml_lines.YamlError as error:
        raise BatchError([f"{shown(path)}:{error.place[0]}:{error.place[1]}: {error}"]) from error
    try:
        return Retain.model_validate(document.data)
    except ValidationError as error:
        problems = []
        for details in error.errors():
            loc = tuple(part for part in details["loc"] if part not in ("str", "WeightedPrompt"))
            line, column = document.place(loc)
            where = field(loc) or "retain"
            problems.append(f"{shown(path)}:{line}:{column}: {where}: {reason(details, list(Retain.model_fields))}")
        raise BatchError(list(dict.fromkeys(problems))) from error


def conflicts(retain: Retain, erased: Iterable[Concept]) -> list[tuple[str, str]]:
    """(prompt, concept) for every prompt of the user's own that names a concept that is erased."""
    texts = [entry if isinstance(entry, str) else entry.prompt for entry in retain.prompts]
    names = [concept.name for concept in erased]
    return [(text, name) for text in texts for name in names if mentions(text, name)]


def weighted_prompts(retain: Retain, erased: Sequence[Concept]) -> dict[str, float]:
    """Prompt -> weight: the user's own, samples without any erased concept, and the concepts' neutral prompts."""
    found = {prompt: 1.0 for concept in erased for prompt in concept.neutral}
    names = [*(concept.name for concept in erased), *retain.exclude]
    for preset in retain.presets:
        found |= dict.fromkeys(sampled_prompts(preset, retain.count, retain.seed, without=names), 1.0)
    given = [WeightedPrompt(prompt=entry) if isinstance(entry, str) else entry for entry in retain.prompts]
    return found | {entry.prompt: entry.weight for entry in given}
