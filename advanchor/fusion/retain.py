"""Retained prompts: what a fused model must still say as the base does, and how much each of them weighs."""

import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor
from torch.nn import functional as F

from advanchor import yaml_lines
from advanchor.concepts import Concept
from advanchor.fusion.solve import FusionSettings
from advanchor.fusion.statistics import token_embeds
from advanchor.models.base import Base
from advanchor.pocket import world
from advanchor.spec import BatchError, choice, reason
from advanchor.text import Prompt, fill

CHUNK = 256  # prompts encoded at a time


def gallery_captions(count: int, rng: random.Random) -> list[str]:
    """Captions of the pocket gallery's random scenes, as it was trained with."""
    return [world.caption(world.random_scene(rng), rng) for _ in range(count)]


PLACES = ("on a table", "in a city", "in a forest", "by the sea", "in the snow", "at night", "on a white background")
THINGS = (
    "a man", "a woman", "a child", "a person", "people", "a dog", "a cat", "a horse", "a bird", "a fish", "a flower",
    "a tree", "a mountain", "a river", "a house", "a street", "a bridge", "a car", "a train", "a boat", "a bicycle",
    "a chair", "a table", "a cup", "a bottle", "a book", "a clock", "a lamp", "a guitar", "a loaf of bread", "an apple",
    "a cake", "a plate of food", "a shirt", "a hat", "a shoe", "a phone", "a computer", "a robot", "a castle",
)  # fmt: skip
MEDIA = ("", "a photo of ", "a painting of ", "a drawing of ", "a portrait of ", "a picture of ", "a 3d render of ")


def general_prompts(count: int, rng: random.Random) -> list[str]:
    """Everyday things in everyday places, for bases whose own captions are not at hand."""
    return [f"{rng.choice(MEDIA)}{rng.choice(THINGS)} {rng.choice(('', *PLACES))}".strip() for _ in range(count)]


RETAIN_PRESETS: dict[str, Callable[[int, random.Random], list[str]]] = {
    "gallery/captions": gallery_captions,
    "general": general_prompts,
}


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
            if preset not in RETAIN_PRESETS:
                raise ValueError(choice(preset, RETAIN_PRESETS))
        return value


def default_retain(model: str) -> Retain:
    """The base's own vocabulary of prompts."""
    return Retain(presets=("gallery/captions",) if model == "pocket" else ("general",))


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


def words(text: str) -> list[str]:
    """Lower-case words without accents and punctuation: how a prompt reads to a text encoder, roughly."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))


def mentions(prompt: str, name: str) -> bool:
    """Whether the words of a name stand in a prompt, one after another."""
    return f" {' '.join(words(name))} " in f" {' '.join(words(prompt))} " if words(name) else name in prompt


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
        sampled = RETAIN_PRESETS[preset](retain.count, random.Random(f"{preset} {retain.seed}"))
        unique = [prompt for prompt in dict.fromkeys(sampled) if words(prompt)]
        found |= {prompt: 1.0 for prompt in unique if not any(mentions(prompt, name) for name in names)}
    given = [WeightedPrompt(prompt=entry) if isinstance(entry, str) else entry for entry in retain.prompts]
    return found | {entry.prompt: entry.weight for entry in given}


@torch.no_grad()
def encode_all(base: Base, prompts: Sequence[str | Prompt]) -> Tensor:
    """(len(prompts), L, D) on the CPU, some at a time."""
    parts = [base.encode(prompts[i : i + CHUNK]).prompt_embeds.cpu() for i in range(0, len(prompts), CHUNK)]
    return torch.cat(parts)


def meaning(prompt_embeds: Tensor) -> Tensor:
    """(B, D) of length one: a prompt's mean embedding over all positions but the first."""
    return F.normalize(prompt_embeds[:, 1:].mean(1), dim=1)


@dataclass(frozen=True)
class Kept:
    """What a fusion must leave alone."""

    retained: Tensor  # R (D, D), float64: the weighted Gram matrix of retained prompts, of trace comparable to `count`
    exactly: Tensor  # C (D, m): embeddings that keep their keys and values exactly
    weights: dict[str, float]  # of every retained prompt


def kept(base: Base, retain: Retain, erased: Sequence[Concept], settings: FusionSettings) -> Kept:
    """R = gamma n sum_p w_p E_p E_p^T / sum_p w_p, of n erased concepts; and what is kept exactly.

    The prompts nearest to each concept in text-embedding space weigh `neighbour_weight` times as much.
    """
    weights = weighted_prompts(retain, erased)
    null = encode_all(base, [""])
    retained = torch.zeros(null.shape[-1], null.shape[-1], dtype=torch.float64)
    if weights:
        embeds = encode_all(base, list(weights))
        scales = torch.tensor(list(weights.values()), dtype=torch.float64)
        scales[neighbours(base, embeds, erased, settings.neighbours)] *= settings.neighbour_weight
        weights = dict(zip(weights, scales.tolist(), strict=True))
        scaled = embeds * (scales / scales.sum()).sqrt().float()[:, None, None]
        tokens = scaled[:, 1:].flatten(0, 1).double() / (embeds.shape[1] - 1) ** 0.5
        retained += settings.retain_weight * len(erased) * tokens.T @ tokens
    exactly = null[0, :1].T
    if settings.empty == "exact":
        exactly = null[0].T
    else:
        tokens = token_embeds(null)
        retained += settings.empty_weight * len(erased) * tokens @ tokens.T
    return Kept(retained, exactly, weights)


def neighbours(base: Base, embeds: Tensor, erased: Sequence[Concept], count: int) -> Tensor:
    """Indices of the prompts that are among the `count` nearest to any concept, by cosine of their meanings."""
    if not count or not erased:
        return torch.empty(0, dtype=torch.long)
    named = meaning(encode_all(base, [fill(concept.templates[0], concept.name) for concept in erased]))
    similarity = named @ meaning(embeds).T
    return similarity.topk(min(count, len(embeds)), dim=1).indices.unique()
