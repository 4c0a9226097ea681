"""Evaluating an erasure: the same pictures from the base and from the student, read by a scorer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advanchor.evaluation.exam import (
    Answers,
    Exam,
    Question,
    Scorer,
    TextScorer,
    UnknownConceptError,
    WideScorer,
    score,
)
from advanchor.evaluation.generate import generate, numbered_seeds
from advanchor.evaluation.metrics import alignment, diversity, frechet_distance
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.models.base import Base
from advanchor.training.engine import Engine

PREVIEW = 8  # pictures of each group that are kept to be looked at
REMEMBERED = 64  # groups of prompts with a concept whose pictures by the base are not made again


@dataclass
class Evaluation:
    scores: dict[str, Any]
    previews: dict[str, tuple[Tensor, Tensor]]  # "erased", "retained": (before, after), each (8, 3, H, W) in [0, 1]


@dataclass
class Seen:
    """The pictures of a list of questions, as the scorer sees them."""

    answers: Answers
    features: Tensor  # (N, F)
    preview: Tensor  # (8, 3, H, W)
    match: Tensor | None = None  # (N,) how well each fits its prompt, where the scorer can tell


class Evaluator:
    """Examines erasures of one base. What the base makes of retained prompts is remembered between concepts.

    The ranks of an engine share the pictures out among them; each then has all of them.
    """

    def __init__(self, base: Base, scorer: Scorer, settings: EvaluationSettings, engine: Engine | None = None) -> None:
        self.base, self.scorer, self.settings, self.engine = base, scorer, settings, engine
        self.base_pictures: dict[str, Tensor] = {}  # retained prompt -> the base's pictures of it
        self.base_seen: dict[tuple[str, ...], Seen] = {}  # prompts of a concept -> the base's answers

    def pictures(self, questions: Sequence[Question], copies: int, *, remembered: bool) -> Tensor:
        """`copies` pictures of every question, (len(questions) * copies, 3, H, W); known ones are not made again."""
        unique = list(dict.fromkeys(question.prompt for question in questions))
        made = {}
        wanted = [p for p in unique if not remembered or len(self.base_pictures.get(p, ())) != copies]
        if wanted:
            prompts = [prompt for prompt in wanted for _ in range(copies)]
            seeds = numbered_seeds(prompts, self.settings.seed)
            images = self.generate(prompts, seeds)
            made = dict(zip(wanted, images.split(copies), strict=True))
        if remembered:
            self.base_pictures |= made
            made = self.base_pictures
        return torch.cat([made[question.prompt] for question in questions])

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """As evaluation.generate.generate; equally many pictures by every rank, so that all make the same calls."""
        if self.engine is None:
            return generate(self.base, prompts, seeds, self.settings)
        rank, ranks = self.engine.rank, self.engine.world_size
        mine = [i % len(prompts) for i in range(rank, rank + -(-len(prompts) // ranks) * ranks, ranks)]
        images = generate(
            self.base, [prompts[i] for i in mine], [seeds[i] for i in mine], self.settings, self.engine.module
        )
        gathered = self.engine.gather(images.to(self.base.device)).cpu()  # rank by rank
        return gathered.unflatten(0, (ranks, -1)).transpose(0, 1).flatten(0, 1)[: len(prompts)]

    def see(self, questions: Sequence[Question], copies: int, *, remembered: bool = False) -> Seen:
        images = self.pictures(questions, copies, remembered=remembered)
        device = self.base.device
        answers = [answer for part in images.split(256) for answer in self.scorer.read(part.to(device))]
        features = torch.cat([self.scorer.features(part.to(device)).cpu() for part in images.split(256)])
        return Seen(answers, features, images[previewed(len(images))], self.match(images, questions, copies))

    def match(self, images: Tensor, questions: Sequence[Question], copies: int) -> Tensor | None:
        """How well pictures, `copies` of each question, fit their prompts, (N,); None if the scorer cannot tell."""
        if not isinstance(self.scorer, TextScorer):
            return None
        prompts = [question.prompt for question in questions for _ in range(copies)]
        parts = [slice(start, start + 256) for start in range(0, len(images), 256)]
        return torch.cat([self.scorer.match(images[p].to(self.base.device), prompts[p]).cpu() for p in parts])

    def by_base(self, group: str, questions: Sequence[Question], copies: int) -> Seen:
        """What the base makes of a group of questions: of a concept that is examined again, made once."""
        if group == "retained":
            return self.see(questions, copies, remembered=True)
        asked = tuple(question.prompt for question in questions)
        if asked not in self.base_seen:
            if len(self.base_seen) >= REMEMBERED:
                self.base_seen.pop(next(iter(self.base_seen)))
            self.base_seen[asked] = self.see(questions, copies)
        return self.base_seen[asked]

    def exam(self, concept: str) -> Exam:
        """Raises UnknownConceptError."""
        if self.settings.exam == "plain":
            return self.scorer.exam(concept, self.settings.num_prompts)
        if not isinstance(self.scorer, WideScorer):
            raise UnknownConceptError("exam: wide is the pocket gallery's, and this base's scorer has none")
        return self.scorer.wide_exam(concept, self.settings.num_prompts)

    def evaluate(self, concept: str, student: Callable[[float], AbstractContextManager]) -> Evaluation:
        """Scores of the erasure that is on, at a scale, inside `student(scale)`. Raises UnknownConceptError."""
        exam = self.exam(concept).keeping(self.settings.num_retained)
        copies = {
            "erased": self.settings.images_per_prompt,
            "retained": self.settings.retained_images_per_prompt,
            "hinted": self.settings.images_per_prompt,
            "near": self.settings.retained_images_per_prompt,
        }
        groups = {name: group for name in copies if (group := getattr(exam, name))}
        before = {name: self.by_base(name, group, copies[name]) for name, group in groups.items()}
        expanded = exam.repeated(copies)

        def examined(scale: float) -> tuple[dict[str, Seen], dict[str, Any]]:
            with student(scale):
                after = {name: self.see(group, copies[name]) for name, group in groups.items()}
            found = scores_of(expanded, after, copies["retained"]) | changes(after["retained"], before["retained"])
            if isinstance(self.scorer, WideScorer) and self.settings.exam == "wide":
                found |= {
                    "strangeness": self.scorer.strangeness(after["erased"].features).mean().item(),
                    "base_strangeness": self.scorer.strangeness(before["erased"].features).mean().item(),
                    "tags": by_tag(expanded, before, after),
                }
            return after, found

        after, of_student = examined(1.0)
        scores: dict[str, Any] = {**of_student, "base": scores_of(expanded, before, copies["retained"])}
        if self.settings.scales:
            scores["scales"] = {f"{scale:g}": examined(scale)[1] for scale in self.settings.scales}
        scores["num_images"] = {name: len(seen.answers) for name, seen in after.items()}
        previews = {name: (before[name].preview, after[name].preview) for name in ("erased", "retained")}
        return Evaluation(scores, previews)


def previewed(count: int) -> Tensor:
    """(PREVIEW,) numbers of the pictures, of so many, that are kept to be looked at."""
    return torch.linspace(0, count - 1, PREVIEW).long()


def scores_of(exam: Exam, seen: Mapping[str, Seen], copies: int) -> dict[str, Any]:
    """UA, IRA and CRA; alignment and diversity of retained prompts, of which there are `copies` pictures each.

    clip_score, clip_score_erased: mean match of pictures and their prompts, without and with the concept.
    """
    retained = seen["retained"]
    matches = {"clip_score": retained.match, "clip_score_erased": seen["erased"].match}
    return score(exam, {name: group.answers for name, group in seen.items()}) | {
        "alignment": alignment(exam.retained, retained.answers),
        "diversity": diversity(retained.features, copies),
        **{name: match.mean().item() for name, match in matches.items() if match is not None},
    }


def by_tag(exam: Exam, before: Mapping[str, Seen], after: Mapping[str, Seen]) -> dict[str, dict[str, float]]:
    """Of the pictures of each tag: how many, the share that is wholly right, the base's, and how far they moved."""
    found: dict[str, list[tuple[bool, bool, float]]] = {}
    for group in ("retained", "near"):
        if group not in after:
            continue
        moved = (after[group].features - before[group].features).norm(dim=1).tolist()
        for question, own, base, distance in zip(
            getattr(exam, group), after[group].answers, before[group].answers, moved, strict=True
        ):
            own_right, base_right = (alignment([question], [answer]) == 1 for answer in (own, base))
            found.setdefault(question.tag, []).append((own_right, base_right, distance))
    names = ("right", "base_right", "moved")
    return {
        tag: {
            "pictures": len(rows),
            **{n: sum(column) / len(rows) for n, column in zip(names, zip(*rows, strict=True), strict=True)},
        }
        for tag, rows in found.items()
    }


def changes(after: Seen, before: Seen) -> dict[str, float]:
    """How far pictures of retained prompts have moved: each from its own, and all of them together."""
    moved = (after.features - before.features).norm(dim=1).mean().item()
    return {"degradation": moved, "frechet": frechet_distance(after.features, before.features)}
