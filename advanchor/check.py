"""What is wrong with a list of concepts before anything is trained.

Doubles, aliases, what is also retained, and what the base does not draw in the first place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Literal

import torch

from advanchor.concepts import Concept
from advanchor.evaluation.exam import Scorer, UnknownConceptError, recognised
from advanchor.evaluation.generate import SamplingSettings, generate, numbered_seeds
from advanchor.fusion.retain import Retain, conflicts
from advanchor.models.base import Base
from advanchor.retained import encode_all, words
from advanchor.text import fill

NEAR = 0.3  # of the distance to the neutral prompt; the pocket gallery's 218 concepts are all farther apart


DRAWN = 0.5  # share of the pictures for a prompt that must show the concept


@dataclass(frozen=True)
class Finding:
    """Two concepts, or a prompt and a concept, that get in each other's way."""

    kind: Literal["spelling", "alias", "near", "retained", "undrawn"]
    first: str
    second: str
    message: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def check(concepts: Sequence[Concept], retain: Retain | None = None, base: Base | None = None) -> list[Finding]:
    """Everything suspicious, worst first; near-duplicates only with a base, whose text encoder tells them."""
    found = retained(concepts, retain) + spellings(concepts) + aliases(concepts)
    named = {frozenset((finding.first, finding.second)) for finding in found}
    near = near_duplicates(concepts, base) if base else []
    return found + [finding for finding in near if frozenset((finding.first, finding.second)) not in named]


def retained(concepts: Sequence[Concept], retain: Retain | None) -> list[Finding]:
    pairs = conflicts(retain, concepts) if retain else []
    return [Finding("retained", p, n, f"retained prompt {p!r} names {n!r}, which is erased") for p, n in pairs]


def spellings(concepts: Sequence[Concept]) -> list[Finding]:
    """Names with the same words but for case, accents and punctuation: a text encoder reads most of them alike."""
    return [
        Finding("spelling", a.name, b.name, f"{a.name!r} and {b.name!r} differ only in case, accents or punctuation")
        for a, b in combinations(concepts, 2)
        if words(a.name) == words(b.name)
    ]


def aliases(concepts: Sequence[Concept]) -> list[Finding]:
    """One name within the other: "Van Gogh" and "Vincent van Gogh"."""
    found = []
    for a, b in combinations(concepts, 2):
        short, long = sorted((a, b), key=lambda concept: len(words(concept.name)))
        if a.kind == b.kind and words(a.name) != words(b.name) and within(words(short.name), words(long.name)):
            message = f"{short.name!r} stands in {long.name!r}: perhaps they are the same, and erasing one erases both"
            found.append(Finding("alias", short.name, long.name, message))
    return found


def within(short: list[str], long: list[str]) -> bool:
    return bool(short) and any(long[i : i + len(short)] == short for i in range(len(long)))


def near_duplicates(concepts: Sequence[Concept], base: Base) -> list[Finding]:
    """Concepts of a kind that are nearer to each other than NEAR of their distance to their neutral prompts.

    Distances are between mean embeddings of the first template, over all positions but the first.
    """
    found = []
    for kind in dict.fromkeys(concept.kind for concept in concepts):
        listed = [concept for concept in concepts if concept.kind == kind]
        embeds = encode_all(base, [fill(concept.templates[0], concept.name) for concept in listed])[:, 1:].mean(1)
        neutral = encode_all(base, [concept.neutral[0] for concept in listed])[:, 1:].mean(1)
        own = (embeds - neutral).norm(dim=1)
        ratio = torch.cdist(embeds, embeds) / torch.minimum(own[:, None], own).clamp_min(1e-12)
        for i, j in (ratio < NEAR).triu(1).nonzero().tolist():
            a, b = listed[i].name, listed[j].name
            found.append(
                Finding(
                    "near", a, b, f"{a!r} and {b!r} are nearly the same to the text encoder: their distance is "
                    f"{ratio[i, j]:.2f} of that to their neutral prompt"
                )
            )  # fmt: skip
    return found


def undrawn(
    concepts: Iterable[Concept], base: Base, scorer: Scorer, settings: SamplingSettings, copies: int
) -> list[Finding]:
    """Concepts that the base does not draw for some of the prompts they are to be erased with.

    What a prompt does not draw, training on it does not erase. Concepts that the scorer does not know are left out.
    """
    found = []
    for concept in concepts:
        try:
            shares = drawn(base, concept, scorer, settings, copies)
        except UnknownConceptError:
            continue
        if missed := [prompt for prompt, share in shares.items() if share < DRAWN]:
            message = (
                f"the base hardly draws {concept.name!r} for {len(missed)} of the {len(shares)} prompts that it is "
                f"to be erased with, for example {missed[0]!r} ({shares[missed[0]]:.0%} of {copies} pictures)"
            )
            found.append(Finding("undrawn", concept.name, missed[0], message))
    return found


def drawn(base: Base, concept: Concept, scorer: Scorer, settings: SamplingSettings, copies: int) -> dict[str, float]:
    """By prompt: the share of so many pictures of the base's in which the concept is recognised.

    Raises UnknownConceptError.
    """
    exam = scorer.exam(concept.name, 1)
    prompts = [fill(template, concept.name).text for template in concept.templates]
    repeated = [prompt for prompt in prompts for _ in range(copies)]
    with torch.no_grad():
        answers = scorer.read(generate(base, repeated, numbered_seeds(repeated, 0), settings))
    groups = [answers[i : i + copies] for i in range(0, len(answers), copies)]
    return {prompt: recognised(exam, group) for prompt, group in zip(prompts, groups, strict=True)}
