"""What a batch will cost, from counted UNet work and one short measurement of this machine."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from advanchor import models
from advanchor.diffusion import unet_output
from advanchor.evaluation import EvaluationSettings
from advanchor.evaluation.attacks import BATCH_SIZE, NUM_PICTURES, TRIED_ON
from advanchor.methods import hardened_anchor
from advanchor.methods.adv_anchor import Settings as AdvAnchorSettings
from advanchor.plan import Task, is_scored
from advanchor.spec import BatchSpec
from advanchor.training import TrainingSettings

BACKWARD = 2.0  # a backward pass costs about two forwards
RETAINED_PROMPTS = 88  # of the pocket gallery's exam


def training_rows(task: Task) -> float:
    """Forward passes of one latent through the UNet, or their worth, that erasing takes at most."""
    s = task.method
    if not isinstance(s, TrainingSettings):
        return 0.0  # closed form: a few prompts are encoded
    rows = 2.0 * s.num_latents * s.latent_steps  # with guidance
    rows += s.steps * s.batch_size * (2 + 2 * (1 + BACKWARD) + 1)  # constants, student on two prompts, target
    if isinstance(s, AdvAnchorSettings):
        rows += s.steps * s.batch_size * s.anchor_steps * (1 + BACKWARD)
    if isinstance(s, hardened_anchor.Settings):
        attacked, trained = s.attacks * s.attack_steps, s.round_steps * (s.attacks + 3)  # concept, neutral, sampled
        rows += s.rounds * s.batch_size * ((attacked + trained) * (1 + BACKWARD) + 4 * s.round_steps)
    return rows


def evaluation_rows(spec: BatchSpec) -> float:
    e = spec.evaluate
    if e is None or not is_scored(spec.model, e):
        return 0.0
    retained = e.num_retained or (RETAINED_PROMPTS if e.scorer is None else e.scorer.num_retained)
    images = 2 * e.num_prompts * e.images_per_prompt + retained * e.retained_images_per_prompt
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        duration = f"{self.hours * 60:.1f} minutes" if self.hours < 2 else f"{self.hours:.1f} hours"
        unit = "GPU-hours" if self.device == "cuda" else "core-hours"
        return (
            f"at most {self.forwards_per_task:,.0f} forward-equivalents per concept; at this machine's "
            f"{self.forwards_per_second:,.0f} per second and one gang that is {duration} ({self.hours:.2f} {unit}); "
            "divide by the number of gangs"
        )


def estimate(spec: BatchSpec, tasks: Sequence[Task]) -> Estimate:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    per_task = sum(map(training_rows, tasks)) / max(len(tasks), 1) + evaluation_rows(spec)
    speed = forwards_per_second(spec.model, device)
    return Estimate(len(tasks), per_task, speed, device, per_task * len(tasks) / speed / 3600)


@torch.no_grad()
def forwards_per_second(model: str, device: str) -> float:
    """Latents per second through the UNet, on one core or one GPU: the best of three short runs."""
    base = models.load(model, device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batch = 16 if base.latent_shape[1] <= 16 else 1
    conditioning = base.encode([""] * batch)
    noise = torch.randn(batch, *base.latent_shape, device=base.device)
    timesteps = torch.zeros(batch, dtype=torch.long, device=base.device)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float(unet_output(base.unet, noise, timesteps, conditioning).sum())
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return batch / best
