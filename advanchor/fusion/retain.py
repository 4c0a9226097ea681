"""Retained prompts: what a fused model must still say as the base does, and how much each of them weighs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from advanchor import yaml_lines
from advanchor.concepts import Concept
from advanchor.explain import choice, reason
from advanchor.fusion.solve import FusionSettings
from advanchor.guard import token_embeds
from advanchor.models.base import Base
from advanchor.retained import VOCABULARIES, encode_all, mentions, neighbours, own_vocabulary, sampled_prompts
from advanchor.spec import BatchError


class WeightedPrompt(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(description="a prompt that must keep its meaning")
    weight: float = Field(default=1.0, gt=0, description="how many ordinary prompts it counts for")


class Retain(BaseModel):
    """What to retain, as a user writes it in retain.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: tuple[str | WeightedPrompt, ...] = Field(default=(), description="prompts, each with an optional weight")
    presets: tuple[str, ...] = Field(default=(), description="vocabularies that prompts are sampled from")
    count: int = Field(default=2000, ge=1, description="prompts sampled from each preset")
    seed: int = Field(default=0, ge=0, description="decides the sampling")
    exclude: tuple[str, ...] = Field(default=(), description="names that sampled prompts do not mention")

    @field_validator("presets")
    @classmethod
    def check(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for preset in value:
            if preset not in VOCABULARIES:
                raise ValueError(choice(preset, VOCABULARIES))
        return value


def default_retain(model: str) -> Retain:
    """The base's own vocabulary of prompts."""
    return Retain(presets=(own_vocabulary(model),))


def read_retain(path: Path) -> Retain:
    """A retain.yaml. Raises BatchError with the place of every mistake."""
    try:
        document = yaml_lines.parse(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BatchError([f"{path}: cannot be read: {error}"]) from error
    except yaml_lines.YamlError as error:
        raise BatchError([f"{path}:{error.place[0]}:{error.place[1]}: {error}"]) from error
    try:
        return Retain.model_validate(document.data)
    except ValidationError as error:
        problems = []
        for details in error.errors():
            shown = tuple(part for part in details["loc"] if part not in ("str", "WeightedPrompt"))
            line, column = document.place(shown)
            where = ".".join(map(str, shown)) or "retain"
            problems.append(f"{path}:{line}:{column}: {where}: {reason(details, list(Retain.model_fields))}")
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


@dataclass(frozen=True)
class Kept:
    """What a fusion must leave alone."""

    retained: Tensor  # R (D, D), float64: the weighted Gram matrix of retained prompts, of trace comparable to `count`
    exactly: Tensor  # C (D, m): embeddings that keep their keys and values exactly
    weights: dict[str, float]  # of every retained prompt


def kept(
    base: Base, retain: Retain, erased: Sequence[Concept], settings: FusionSettings, count: int | None = None
) -> Kept:
    """R = gamma n sum_p w_p E_p E_p^T / sum_p w_p; and what is kept exactly.

    count: n, the concepts whose sums R stands beside; None: all that are erased.
    The prompts nearest to each concept in text-embedding space weigh `neighbour_weight` times as much.
    """
    weights, count = weighted_prompts(retain, erased), len(erased) if count is None else count
    null = encode_all(base, [""])
    retained = torch.zeros(null.shape[-1], null.shape[-1], dtype=torch.float64)
    if weights:
        embeds = encode_all(base, list(weights))
        scales = torch.tensor(list(weights.values()), dtype=torch.float64)
        scales[neighbours(base, embeds, erased, settings.neighbours)] *= settings.neighbour_weight
        weights = dict(zip(weights, scales.tolist(), strict=True))
        scaled = embeds * (scales / scales.sum()).sqrt().float()[:, None, None]
        tokens = scaled[:, 1:].flatten(0, 1).double() / (embeds.shape[1] - 1) ** 0.5
        retained += settings.retain_weight * count * tokens.T @ tokens
    exactly = null[0, :1].T
    if settings.empty == "exact":
        exactly = null[0].T
    else:
        tokens = token_embeds(null)
        retained += settings.empty_weight * count * tokens @ tokens.T
    return Kept(retained, exactly, weights)
