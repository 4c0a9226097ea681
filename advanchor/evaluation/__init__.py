"""Evaluating an erasure: the same pictures from the base and from the student, read by a scorer."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advanchor.engine import Engine
from advanchor.evaluation.exam import Answers, Question, Scorer, score
from advanchor.evaluation.generate import SamplingSettings, generate, numbered_seeds
from advanchor.evaluation.metrics import alignment, diversity, frechet_distance
from advanchor.models.base import Base

PREVIEW = 8  # pictures of each group that are kept to be looked at


class EvaluationSettings(SamplingSettings):
    """What an erasure is examined with."""

    num_prompts: int = Field(default=25, ge=1, description="prompts with the concept, none of which it was erased with")
    images_per_prompt: int = Field(default=4, ge=1, description="pictures of each of them")
    retained_images_per_prompt: int = Field(default=2, ge=1, description="pictures of each prompt without the concept")
    seed: int = Field(default=0, description="decides the noise that pictures start from")


@dataclass
class Evaluation:
    scores: dict[str, float | int | dict | None]
    previews: dict[str, tuple[Tensor, Tensor]]  # "erased", "retained": (before, after), each (8, 3, H, W) in [0, 1]


@dataclass
class Seen:
    """The pictures of a list of questions, as the scorer sees them."""

    answers: Answers
    features: Tensor  # (N, F)
    preview: Tensor  # (8, 3, H, W)


class Evaluator:
    """Examines erasures of one base. What the base makes of retained prompts is remembered between concepts.

    The ranks of an engine share the pictures out among them; each then has all of them.
    """

    def __init__(self, base: Base, scorer: Scorer, settings: EvaluationSettings, engine: Engine | None = None) -> None:
        self.base, self.scorer, self.settings, self.engine = base, scorer, settings, engine
        self.base_pictures: dict[str, Tensor] = {}  # retained prompt -> the base's pictures of it

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
        chosen = torch.linspace(0, len(images) - 1, PREVIEW).long()
        return Seen(answers, features, images[chosen])

    def evaluate(self, concept: str, student: Callable[[], AbstractContextManager]) -> Evaluation:
        """Scores of the erasure that is on inside `student()`. Raises UnknownConceptError."""
        exam = self.scorer.exam(concept, self.settings.num_prompts)
        copies = {
            "erased": self.settings.images_per_prompt,
            "retained": self.settings.retained_images_per_prompt,
            "hinted": self.settings.images_per_prompt,
        }
        groups = {name: group for name in copies if (group := getattr(exam, name))}
        before = {name: self.see(group, copies[name], remembered=name == "retained") for name, group in groups.items()}
        with student():
            after = {name: self.see(group, copies[name]) for name, group in groups.items()}
        expanded = exam.repeated(copies)
        of_base, of_student = (
            score(expanded, {name: seen.answers for name, seen in seen_in.items()})
            | {
                "alignment": alignment(expanded.retained, seen_in["retained"].answers),
                "diversity": diversity(seen_in["retained"].features, copies["retained"]),
            }
            for seen_in in (before, after)
        )
        moved = after["retained"].features, before["retained"].features
        scores: dict[str, float | int | dict | None] = {**of_student, "base": of_base}
        scores["degradation"] = (moved[0] - moved[1]).norm(dim=1).mean().item()
        scores["frechet"] = frechet_distance(*moved)
        scores["num_images"] = {name: len(seen.answers) for name, seen in after.items()}
        previews = {name: (before[name].preview, after[name].preview) for name in ("erased", "retained")}
        return Evaluation(scores, previews)
