"""What is wrong with a list of concepts before anything is trained.

Doubles, aliases, slips of the pen, names too long for the base, what is also retained, and what the base does not draw
in the first place.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Literal

import torch
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from advanchor.batch.retain import Retain, conflicts
from advanchor.concepts import Concept
from advanchor.evaluation.exam import Scorer, UnknownConceptError, recognised
from advanchor.evaluation.generate import generate, numbered_seeds
from advanchor.evaluation.settings import SamplingSettings
from advanchor.models.base import Base
from advanchor.models.encoding import means
from advanchor.models.text import PromptError, fill
from advanchor.models.vocabulary import words

NEAR = 0.3  # of the distance to the neutral prompt; the pocket gallery's 218 concepts are all farther apart
SLIPS, SLIP_SHARE, SLIP_LENGTH = (
    1,
    0.08,
    6,
)  # letters in which a slip of the pen differs, or their share; of names so long
ROWS = 1000  # of names that are compared with all others at a time
DRAWN = 0.5  # share of the pictures for a prompt that must show the concept


@dataclass(frozen=True)
class Finding:
    """Two concepts, or a prompt and a concept, that get in each other's way."""

    kind: Literal["spelling", "alias", "slip", "near", "long", "retained", "undrawn"]
    first: str
    second: str
    message: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def check(concepts: Sequence[Concept], retain: Retain | None = None, base: Base | None = None) -> list[Finding]:
    """Everything suspicious, worst first; what is long or near only with a base, whose tokenizer and encoder tell."""
    long = overlong(concepts, base) if base else []
    found = long + retained(concepts, retain) + spellings(concepts) + aliases(concepts)
    found += unnamed(slips(concepts), found)
    short = [concept for concept in concepts if concept.name not in {finding.first for finding in long}]
    return found + unnamed(near_duplicates(short, base) if base else [], found)


def unnamed(further: Iterable[Finding], found: Iterable[Finding]) -> list[Finding]:
    """Findings about pairs that no earlier one is about."""
    named = {frozenset((finding.first, finding.second)) for finding in found}
    return [finding for finding in further if frozenset((finding.first, finding.second)) not in named]


def overlong(concepts: Sequence[Concept], base: Base) -> list[Finding]:
    """Names that do not fit into the prompts that they are to be erased with."""
    found = []
    for concept in concepts:
        try:
            base.concept_tokens([fill(template, concept.name) for template in concept.templates])
        except PromptError as error:
            found.append(Finding("long", concept.name, "", str(error)))
    return found


def retained(concepts: Sequence[Concept], retain: Retain | None) -> list[Finding]:
    pairs = conflicts(retain, concepts) if retain else []
    return [Finding("retained", p, n, f"retained prompt {p!r} names {n!r}, which is erased") for p, n in pairs]


def spellings(concepts: Sequence[Concept]) -> list[Finding]:
    """Names with the same words but for case, accents and punctuation: a text encoder reads most of them alike."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for concept in concepts:
        alike[tuple(words(concept.name))].append(concept.name)
    pairs = (pair for names in alike.values() for pair in combinations(names, 2))
    return [Finding("spelling", a, b, f"{a!r} and {b!r} differ only in case, accents or punctuation") for a, b in pairs]


def aliases(concepts: Sequence[Concept]) -> list[Finding]:
    """One name within the other: "Van Gogh" and "Vincent van Gogh"."""
    known: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for concept in concepts:
        known[concept.kind, *words(concept.name)].append(concept.name)
    found = []
    for concept in concepts:
        for part in dict.fromkeys(parts(words(concept.name))):
            for short in known.get((concept.kind, *part), ()):
                message = (
                    f"{short!r} stands in {concept.name!r}: perhaps they are the same, and erasing one erases both"
                )
                found.append(Finding("alias", short, concept.name, message))
    return found


def parts(name: list[str]) -> Iterator[tuple[str, ...]]:
    """All that stands together in a name and is not the whole of it."""
    for length in range(1, len(name)):
        yield from (tuple(name[i : i + length]) for i in range(len(name) - length + 1))


def slips(concepts: Sequence[Concept]) -> list[Finding]:
    """Names of a kind that differ in so few letters that one of them may be misspelt: "Kelly McKernon"."""
    found = []
    for kind in dict.fromkeys(concept.kind for concept in concepts):
        own = [(" ".join(words(concept.name)), concept.name) for concept in concepts if concept.kind == kind]
        own = [(plain, name) for plain, name in own if len(plain) >= SLIP_LENGTH]
        most = max((allowed(plain) for plain, _ in own), default=0)
        plains = [plain for plain, _ in own]
        for start in range(0, len(own), ROWS):
            distances = cdist(plains[start : start + ROWS], plains, scorer=OSA.distance, score_cutoff=most)
            for i, j in zip(*distances.nonzero(), strict=True):
                first, second = own[start + int(i)], own[int(j)]
                if start + i < j and distances[i, j] <= min(allowed(first[0]), allowed(second[0])):
                    found.append(slip(first[1], second[1], int(distances[i, j])))
    return found


def allowed(plain: str) -> int:
    return max(SLIPS, int(SLIP_SHARE * len(plain)))


def slip(first: str, second: str, letters: int) -> Finding:
    differ = f"{letters} letter{'s' * (letters > 1)}"
    return Finding(
        "slip", first, second, f"{first!r} and {second!r} differ in {differ}: perhaps one of them is misspelt"
    )


def near_duplicates(concepts: Sequence[Concept], base: Base) -> list[Finding]:
    """Concepts of a kind that are nearer to each other than NEAR of their distance to their neutral prompts.

    Distances are between mean embeddings of the first template, over the tokens that speak.
    """
    found = []
    for kind in dict.fromkeys(concept.kind for concept in concepts):
        listed = [concept for concept in concepts if concept.kind == kind]
        embeds = means(base, [fill(concept.templates[0], concept.name) for concept in listed])
        neutral = means(base, [concept.neutral[0] for concept in listed])
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
