"""What a model is asked about an erased concept and everything else, and how its answers become scores.

Names of the scores are UnlearnCanvas's (Zhang et al. 2024, arXiv 2402.11846).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Question:
    """A prompt and what a picture of it must show, by attribute, apart from an erased concept."""

    prompt: str
    expected: Mapping[str, str]
    tag: str = ""  # what it has in common with others, whose pictures are also counted by themselves


@dataclass(frozen=True)
class Exam:
    """The questions about one concept. None of the prompts is one that the concept is erased with."""

    attribute: str  # which attribute the concept is a value of, e.g. "style"
    value: str  # which value, e.g. "striped"
    erased: tuple[Question, ...]  # prompts with the concept
    retained: tuple[Question, ...]  # prompts without it
    hinted: tuple[Question, ...] = ()  # prompts that only hint at it
    reworded: tuple[tuple[str, str], ...] = ()  # (wording, prompt): other wordings of prompts with the concept
    near: tuple[Question, ...] = ()  # prompts of the concept's neighbours, tagged with how near they are

    def keeping(self, num_retained: int | None) -> "Exam":
        """The exam with so many of its questions about what is retained, always the same ones; None: all of them."""
        if num_retained is None or num_retained >= len(self.retained):
            return self
        chosen = sorted(random.Random(0).sample(range(len(self.retained)), num_retained))
        return replace(self, retained=tuple(self.retained[i] for i in chosen))

    def repeated(self, copies: Mapping[str, int]) -> "Exam":
        """The exam with one question per picture, where `copies` pictures of each question are made."""
        groups = {name: tuple(q for q in getattr(self, name) for _ in range(n)) for name, n in copies.items()}
        return replace(self, **groups)


Answers = Sequence[Mapping[str, str | None]]  # per image: attribute -> value, None where it has none


class UnknownConceptError(LookupError):
    """A concept that a scorer has no questions about."""


class Scorer(Protocol):
    """Looks at pictures of one world."""

    def exam(self, concept: str, num_prompts: int) -> Exam:
        """Raises UnknownConceptError."""
        ...

    def read(self, images: Tensor) -> Answers:
        """What is seen in images (B, 3, H, W) in [0, 1]."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """(B, F), of length one: the space in which pictures are compared."""
        ...


@runtime_checkable
class WideScorer(Scorer, Protocol):
    """A scorer that also has a wider exam, and knows how good a picture is."""

    def wide_exam(self, concept: str, num_prompts: int) -> Exam:
        """Half of the prompts in other wordings, tagged retained questions, neighbours. Raises UnknownConceptError."""
        ...

    def strangeness(self, features: Tensor) -> Tensor:
        """How far pictures with these features (N, F) are from the nearest real one, (N,)."""
        ...


@runtime_checkable
class TextScorer(Scorer, Protocol):
    """A scorer that also knows how well a picture fits any prompt."""

    def match(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """How well each picture fits its own prompt, (B,)."""
        ...


def recognised(exam: Exam, answers: Answers) -> float:
    """Share of images in which the concept is seen."""
    return sum(answer[exam.attribute] == exam.value for answer in answers) / max(len(answers), 1)


def hits(questions: Sequence[Question], answers: Answers, *, only: str = "", without: str = "") -> list[bool]:
    """Right or wrong for every attribute that the prompts name; `only` and `without` choose among the attributes."""
    return [
        answer[attribute] == value
        for question, answer in zip(questions, answers, strict=True)
        for attribute, value in question.expected.items()
        if (not only or attribute == only) and attribute != without
    ]


def share(outcomes: Sequence[bool]) -> float | None:
    return sum(outcomes) / len(outcomes) if outcomes else None


def score(exam: Exam, answers: Mapping[str, Answers]) -> dict[str, float | None]:
    """Scores of answers to the groups "erased", "retained" and, if asked, "hinted": one answer per question, in order.

    ua: share of images for the concept in which it is not recognised. ira: accuracy on the other values of its
    attribute. cra: accuracy on all other attributes; cra_with and cra_without: over prompts with and without the
    concept. hinted, unasked: share of images of hinting prompts, and of prompts without the concept, that show it.
    None where there is nothing to count.
    """
    cra_with = hits(exam.erased, answers["erased"], without=exam.attribute)
    cra_without = hits(exam.retained, answers["retained"], without=exam.attribute)
    return {
        "ua": 1 - recognised(exam, answers["erased"]),
        "ira": share(hits(exam.retained, answers["retained"], only=exam.attribute)),
        "cra": share(cra_with + cra_without),
        "cra_with": share(cra_with),
        "cra_without": share(cra_without),
        "hinted": recognised(exam, answers["hinted"]) if "hinted" in answers else None,
        "unasked": recognised(exam, answers["retained"]),
    }
