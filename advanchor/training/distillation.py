"""Many concepts erased from one student: every prompt of a concept is to mean what its anchor means to the teacher.

    L = mean over a batch of  w(t) | eps(x_t, e) - eps0(x_t, e') |^2 / s  +  mean over blocks of | h - h0 |^2 / s_block

    erased     e: a concept's prompt      e': its anchor
    retained   e: a retained prompt       e' = e
    invented   e: an invented name's      e' = e (training/inventions.py)

h is what a transformer block of the denoiser gives: many times as many numbers as eps, so that a step teaches more.
w(t) makes an error of eps one of v = (eps - sigma x_t) / signal (Salimans and Ho 2022): the noisy steps decide whom a
picture shows. s is the mean difference between the teacher's answers to a concept and to its anchor, so that a loss of
1 is a concept that is still all there.

The change is dW of any weights of the denoiser (training/student.py). What step n draws follows from the seed and n
alone, so that an interrupted training goes on from its last checkpoint with the same numbers.
"""

import math
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning, join
from advanchor.models.schedule import FlowSchedule, Schedule, add_noise
from advanchor.settings import Section
from advanchor.training.engine import derived_seed
from advanchor.training.student import Student, watched

WARM_UP = 0.05  # of all steps, in which the learning rate rises; then it falls as a cosine
LONGEST_GRADIENT = 1.0  # longer ones are shortened to it
ELSEWHERE = 0.5  # of the draws, at which x_0 is not a picture of the prompt's own: sampling leads through others', too
LARGEST = 20.0  # w(t)
MEASURED = 64  # draws by which the scales of the losses are measured
EVERY = 100  # steps between two checkpoints

Progress = Callable[[int, int, float], None]  # step, of how many, mean loss since the last time


class DistillSettings(Section):
    """How one student learns all concepts' targets."""

    trained_weights: Literal["readers", "cross_attention", "denoiser"] = Field(
        default="denoiser", description="which weights learn: those that read prompts, cross-attention, or all"
    )
    towards: Literal["neutral", "anchor"] = Field(
        default="neutral", description="what a concept becomes: the neutral prompt, or the anchor of its erasure"
    )
    start: Literal["base", "closed_form"] = Field(
        default="base", description="what training begins from: nothing, or anchor_edit's delta"
    )
    steps: int = Field(default=1200, ge=1, description="optimizer steps of the student")
    lr: float = Field(default=5e-4, gt=0, description="highest learning rate (Adam)")
    batch_size: int = Field(default=32, ge=3, description="draws of a step: erased, retained and invented")
    erased_share: float = Field(default=0.3, gt=0, lt=1, description="share of erased prompts among the draws")
    invented_share: float = Field(default=0.1, ge=0, lt=1, description="share of invented names among the draws")
    inventions: int = Field(default=1000, ge=1, description="invented names in all")
    block_weight: float = Field(
        default=1.0, ge=0, description="weight of what the denoiser's blocks give beside what it predicts"
    )
    average: float = Field(default=0.99, ge=0, lt=1, description="decay of the averaged weights that are the result")
    num_latents: int = Field(default=6, ge=1, description="images of each concept sampled from the teacher, as latents")
    retained_latents: int = Field(default=512, ge=1, description="images of retained prompts, likewise")
    latent_steps: int = Field(default=10, ge=1, description="sampling steps of those images")
    latent_guidance: float = Field(default=3.0, ge=0, description="their classifier-free guidance scale")
    seed: int = Field(default=0, ge=0, description="decides every draw")

    @model_validator(mode="after")
    def check_shares(self) -> Self:
        if self.erased_share + self.invented_share >= 1:
            raise ValueError("erased_share and invented_share together leave nothing for retained prompts")
        return self

    @property
    def rows(self) -> tuple[int, int, int]:
        """Erased, retained and invented draws of a step."""
        erased = max(1, round(self.batch_size * self.erased_share))
        invented = round(self.batch_size * self.invented_share)
        return erased, max(1, self.batch_size - erased - invented), invented


@dataclass(frozen=True)
class Lesson:
    """Prompts, what each is to mean, and the latents of pictures of each."""

    asked: Conditioning  # e, (rows, ...)
    meant: Conditioning  # e', (rows, ...)
    weights: Tensor  # (rows,): how often each is drawn, relative to the others
    latents: Tensor  # (N, C, h, w)
    own: Tensor  # (rows, m): which of the latents are pictures of each row's own
    others: Tensor  # (M, C, h, w): where else the student is to say the same
    count: int  # draws of a step


def learning_rate(settings: DistillSettings, step: int) -> float:
    """Of a step, from 0 on."""
    done = (step + 0.5) / settings.steps
    if done < WARM_UP:
        return settings.lr * done / WARM_UP
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def root_weight(schedule: Schedule, timesteps: Tensor) -> Tensor:
    """sqrt(w(t)), (B, 1, 1, 1); a flow's predictions are velocities already."""
    signal, _ = schedule.coefficients(timesteps)
    return (
        torch.ones_like(signal) if isinstance(schedule, FlowSchedule) else signal.clamp_min(LARGEST**-0.5).reciprocal()
    )


def drawn(lessons: Sequence[Lesson], generator: torch.Generator) -> tuple[Tensor, Conditioning, Conditioning]:
    """x_0 (B, C, h, w), e and e' of one step."""
    latents, asked, meant = [], [], []
    for lesson in lessons:
        size = (lesson.count,)
        rows = torch.multinomial(lesson.weights, lesson.count, replacement=True, generator=generator)
        column = torch.randint(lesson.own.shape[1], size, generator=generator)
        strange = torch.randint(len(lesson.others), size, generator=generator)
        elsewhere = (torch.rand(size, generator=generator) < ELSEWHERE).to(lesson.latents.device)
        own = lesson.latents[lesson.own[rows, column]]
        latents.append(torch.where(elsewhere[:, None, None, None], lesson.others[strange], own))
        asked.append(lesson.asked.rows(rows))
        meant.append(lesson.meant.rows(rows))
    return torch.cat(latents), join(*asked), join(*meant)


class Distillation:
    """The student, its optimizer and its average, from one step to the next."""

    def __init__(self, base: Base, settings: DistillSettings) -> None:
        self.base, self.settings = base, settings
        self.lessons: Sequence[Lesson] = ()
        self.student = Student(base.backbone, settings.trained_weights)
        self.weights = list(self.student.changes)
        self.average = [weight.detach().clone() for weight in self.weights]
        self.optimizer = torch.optim.Adam(self.weights, lr=settings.lr, betas=(0.9, 0.99))
        self.scales: list[float] = []  # of the loss of eps, and of each block's
        self.step = 0

    def noisy(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """x_t and t at random."""
        timesteps = self.base.schedule.draw((len(latents),), generator).to(self.base.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.base.device)
        return add_noise(self.base.schedule, latents.to(self.base.device), noise, timesteps), timesteps

    def answers(self, module: nn.Module, x: Tensor, t: Tensor, conditioning: Conditioning) -> list[Tensor]:
        """eps, weighted by sqrt(w(t)), and what each block gives."""
        with watched(self.base.backbone) as seen:
            eps = self.base.predict(module, x, t, conditioning)
        return [eps * root_weight(self.base.schedule, t), *(own.float() for own in seen)]

    @torch.no_grad()
    def measure(self) -> list[float]:
        """Mean squares of how the teacher's answers to erased prompts and to their anchors differ."""
        erased, generator = self.lessons[0], torch.Generator().manual_seed(derived_seed(self.settings.seed, "scales"))
        latents, asked, meant = drawn([replace(erased, count=MEASURED)], generator)
        x, t = self.noisy(latents, generator)
        pairs = zip(*(self.answers(self.base.backbone, x, t, e) for e in (asked, meant)), strict=True)
        return [max(float((own - anchor).square().mean()), 1e-12) for own, anchor in pairs]

    def loss(self) -> Tensor:
        """Of the step that comes."""
        generator = torch.Generator().manual_seed(derived_seed(self.settings.seed, "distill", self.step))
        latents, asked, meant = drawn(self.lessons, generator)
        x, t = self.noisy(latents, generator)
        with torch.no_grad():
            wanted = self.answers(self.base.backbone, x, t, meant)
        found = self.answers(self.student, x, t, asked)
        of_eps, *of_blocks = (
            (own - other).square().mean() / scale for own, other, scale in zip(found, wanted, self.scales, strict=True)
        )
        return of_eps + self.settings.block_weight * sum(of_blocks) / max(len(of_blocks), 1)

    def advance(self) -> float:
        """One step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, LONGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1 - decay)
        self.step += 1
        return float(loss.detach())

    def save(self, path: Path, facts: str) -> None:
        """All that the next step depends on, in one file that appears whole."""
        state = {
            "facts": facts,
            "step": self.step,
            "weights": [weight.detach() for weight in self.weights],
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        torch.save(state, part)
        part.replace(path)

    def restore(self, path: Path, facts: str) -> bool:
        """Go on from a checkpoint of the same training; False if there is none."""
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.base.device)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            return False
        if state.get("facts") != facts:
            return False
        with torch.no_grad():
            for weight, kept in zip(self.weights, state["weights"], strict=True):
                weight.copy_(kept)
        self.average, self.step = state["average"], state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        return True

    def run(self, checkpoint: Path | None, facts: str, progress: Progress) -> dict[str, Tensor]:
        """The averaged dW by name, float32 on the CPU, after all steps.

        facts: say which training a checkpoint is of.
        """
        self.scales = self.measure()
        if checkpoint:
            self.restore(checkpoint, facts)
        if self.step == 0:
            self.average = [weight.detach().clone() for weight in self.weights]  # of where it starts
        recent: list[float] = []
        while self.step < self.settings.steps:
            recent.append(self.advance())
            if self.step % EVERY == 0 or self.step == self.settings.steps:
                if checkpoint:
                    self.save(checkpoint, facts)
                progress(self.step, self.settings.steps, sum(recent) / len(recent))
                recent = []
        return {name: own.cpu().clone() for name, own in zip(self.student.names, self.average, strict=True)}
