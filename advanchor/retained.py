"""What is to be retained: prompts of a base's own world, and how near they are to what is erased."""

import random
import re
import unicodedata
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.pocket import world
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


VOCABULARIES: dict[str, Callable[[int, random.Random], list[str]]] = {
    "gallery/captions": gallery_captions,
    "general": general_prompts,
}


def own_vocabulary(model: str) -> str:
    """The key of VOCABULARIES that a base speaks."""
    return "gallery/captions" if model == "pocket" else "general"


def sampled_prompts(vocabulary: str, count: int, seed: int, without: Sequence[str] = ()) -> list[str]:
    """At most `count` different prompts of a vocabulary, none of which mentions a name of `without`."""
    sampled = VOCABULARIES[vocabulary](count, random.Random(f"{vocabulary} {seed}"))
    unique = [prompt for prompt in dict.fromkeys(sampled) if words(prompt)]
    return [prompt for prompt in unique if not any(mentions(prompt, name) for name in without)]


def words(text: str) -> list[str]:
    """Lower-case words without accents and punctuation: how a prompt reads to a text encoder, roughly."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))


def mentions(prompt: str, name: str) -> bool:
    """Whether the words of a name stand in a prompt, one after another."""
    return f" {' '.join(words(name))} " in f" {' '.join(words(prompt))} " if words(name) else name in prompt


@torch.no_grad()
def encode_all(base: Base, prompts: Sequence[str | Prompt]) -> Tensor:
    """(len(prompts), L, D) on the CPU, some at a time."""
    parts = [base.encode(prompts[i : i + CHUNK]).prompt_embeds.cpu() for i in range(0, len(prompts), CHUNK)]
    return torch.cat(parts)


def meaning(prompt_embeds: Tensor) -> Tensor:
    """(B, D) of length one: a prompt's mean embedding over all positions but the first."""
    return F.normalize(prompt_embeds[:, 1:].mean(1), dim=1)


def neighbours(base: Base, embeds: Tensor, erased: Sequence[Concept], count: int) -> Tensor:
    """Indices of the prompts that are among the `count` nearest to any concept, by cosine of their meanings."""
    if not count or not erased:
        return torch.empty(0, dtype=torch.long)
    named = meaning(encode_all(base, [fill(concept.templates[0], concept.name) for concept in erased]))
    similarity = named @ meaning(embeds).T
    return similarity.topk(min(count, len(embeds)), dim=1).indices.unique()
