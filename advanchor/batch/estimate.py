"""What a batch will cost, from counted UNet work and one short measurement of this machine."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from advanchor import methods, models
from advanchor.batch.plan import Task
from advanchor.batch.spec import BatchSpec
from advanchor.evaluation.attacks import BATCH_SIZE, NUM_PICTURES, TRIED_ON
from advanchor.evaluation.exam import Scorer, UnknownConceptError
from advanchor.evaluation.scorers import is_scored
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods.anchors import SearchSettings
from advanchor.models.base import Base
from advanchor.models.profile import profile_of
from advanchor.models.text import fill
from advanchor.training.cost import BACKWARD
from advanchor.training.representation import READS_TEXT, Price, dear, typical_price


def training_rows(task: Task) -> float:
    """Forward passes of one latent through the UNet, or their worth, that erasing takes."""
    return methods.cost(task.method, task.concept).equivalents


def evaluation_rows(spec: BatchSpec, tasks: Sequence[Task]) -> list[float]:
    """Of each task: what its exam asks for, by the base's own scorer or, about, by that of the settings."""
    e = spec.evaluate
    if e is None or not tasks or not is_scored(tasks[0].base_digest, e):
        return [0.0] * len(tasks)
    scorer = None if e.scorer else built_in_scorer(tasks[0].base_digest)
    return [exam_rows(e, scorer, task.concept.name) for task in tasks]


def built_in_scorer(base_digest: str) -> Scorer:
    make = profile_of(base_digest).scorer
    assert make is not None
    return make(torch.device("cpu"))


def exam_rows(e: EvaluationSettings, scorer: Scorer | None, concept: str) -> float:
    """Of the base's and the student's pictures with the concept, the student's without it at every scale, and attacks.

    The base's pictures without the concept are made once for all of a process's concepts, and are not counted.
    """
    asked, retained = e.num_prompts, e.num_retained or (e.scorer.num_retained if e.scorer else 0)
    if scorer:
        try:
            exam = scorer.exam(concept, e.num_prompts).keeping(e.num_retained)
        except UnknownConceptError:
            return 0.0
        asked, retained = len(exam.erased) + len(exam.hinted), len(exam.retained)
    students = 1 + len(e.scales)
    images = (1 + students) * asked * e.images_per_prompt + students * retained * e.retained_images_per_prompt
    return 2.0 * images * e.steps + attack_rows(e)


def attack_rows(e: EvaluationSettings) -> float:
    """Of all attacks that an evaluation asks for; pictures of the concept that two of them share count twice."""
    examined, learned_from = (2.0 * e.steps * images for images in (e.num_prompts * e.images_per_prompt, NUM_PICTURES))
    trained = e.attack_steps * BATCH_SIZE * (1 + BACKWARD)
    rows: dict[str, float] = {
        "soft_prompt": learned_from + trained + examined,
        "prefix": learned_from + e.attack_steps * TRIED_ON + examined,
        "paraphrases": 2 * examined,
        "relearning": learned_from + trained + examined,
    }
    return sum(rows[name] for name in e.attacks)


@dataclass(frozen=True)
class Estimate:
    num_tasks: int
    forwards_per_task: float
    forwards_per_second: float  # of one process on this machine
    device: str
    hours: float  # of one process
    prices: dict[str, Price] = field(default_factory=dict)  # of an anchor, by the first concept of every kind

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        duration = f"{self.hours * 60:.1f} minutes" if self.hours < 2 else f"{self.hours:.1f} hours"
        unit = "GPU-hours" if self.device == "cuda" else "core-hours"
        return (
            f"about {self.forwards_per_task:,.0f} forward-equivalents per concept, fewer where a search ends early; at "
            f"this machine's {self.forwards_per_second:,.0f} per second and one gang that is {duration} "
            f"({self.hours:.2f} {unit}); divide by the number of gangs"
        )

    def warnings(self) -> list[str]:
        """Of anchors that the weights can hardly represent."""
        return [dear(name, price) for name, price in self.prices.items() if price.is_dear]


def estimate(spec: BatchSpec, tasks: Sequence[Task]) -> Estimate:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = sum(map(training_rows, tasks)) + sum(evaluation_rows(spec, tasks))
    per_task = rows / max(len(tasks), 1)
    base = models.load(spec.base, device=device, dtype=models.DTYPES[spec.deepspeed.precision])
    speed = forwards_per_second(base)
    hours = per_task * len(tasks) / speed / 3600
    return Estimate(len(tasks), per_task, speed, device, hours, prices(base, tasks))


def prices(base: Base, tasks: Sequence[Task]) -> dict[str, Price]:
    """What it takes to represent an anchor, of the first concept of every kind that is led to a learned one."""
    found: dict[str, Price] = {}
    for task in {task.concept.kind: task for task in reversed(tasks)}.values():
        concept, method = task.concept, task.method
        if isinstance(method, SearchSettings) and method.trained_weights in READS_TEXT:
            prompts = [fill(template, concept.name) for template in concept.templates]
            later = method.perturb_tokens == "concept_and_later"
            found[concept.name] = typical_price(base, prompts, method.ridge, later=later)
    return found


@torch.no_grad()
def forwards_per_second(base: Base) -> float:
    """Latents per second through the denoiser, on one core or one GPU: the best of three short runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batch = 16 if base.latent_shape[1] <= 16 else 1
    conditioning = base.encode([""] * batch)
    noise = torch.randn(batch, *base.latent_shape, device=base.device)
    timesteps = torch.zeros(batch, dtype=torch.long, device=base.device)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float(base.denoise(base.backbone, noise, timesteps, conditioning).sum())
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return batch / best
