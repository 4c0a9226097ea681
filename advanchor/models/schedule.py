"""Noise schedules: how x_t is made from x_0, which timesteps a sampler visits, and what a model was trained to predict.

Losses compare predictions in the model's own space: noise where x_t = signal x_0 + sigma noise keeps its variance,
velocity v = noise - x_0 where x_t moves on a straight line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    """What everybody above models/ asks of a schedule."""

    @property
    def num_train_timesteps(self) -> int: ...

    def draw(self, count: Sequence[int], generator: torch.Generator, earliest: float = 0.0) -> Tensor:
        """Timesteps as the model's own sampler visits them, from a share `earliest` of the schedule's noise on."""
        ...

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and sigma of x_t = signal x_0 + sigma noise, each (B, 1, 1, 1)."""
        ...

    def prediction(self, output: Tensor, noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
        """What a model's output says, in the space of the losses."""
        ...

    def ideal(self, latents: Tensor, noise: Tensor) -> Tensor:
        """What a perfect model's prediction would be."""
        ...

    def noise(self, prediction: Tensor, noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
        """epsilon, of a prediction."""
        ...


@dataclass(frozen=True)
class NoiseSchedule:
    """The variance-preserving schedule that a model was trained with; its losses are about epsilon."""

    alphas_cumprod: Tensor  # (num_train_timesteps,)
    prediction_type: str  # "epsilon" or "v_prediction"

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def draw(self, count: Sequence[int], generator: torch.Generator, earliest: float = 0.0) -> Tensor:
        """Whole numbers, uniform."""
        last = self.num_train_timesteps
        return torch.randint(int(earliest * last), last, tuple(count), generator=generator)

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), each (B, 1, 1, 1)."""
        alpha_bar = self.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def prediction(self, output: Tensor, noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
        """Of a model that predicts v, epsilon = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v."""
        if self.prediction_type == "epsilon":
            return output
        signal, sigma = self.coefficients(timesteps)
        return sigma * noisy_latents + signal * output

    def ideal(self, latents: Tensor, noise: Tensor) -> Tensor:
        return noise

    def noise(self, prediction: Tensor, noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
        return prediction


@dataclass(frozen=True)
class FlowSchedule:
    """Rectified flow (Liu et al. 2022): x_t = (1 - s) x_0 + s noise with s = t / 1000, and v = noise - x_0.

    A sampler's sigmas are s = shift u / (1 + (shift - 1) u), u evenly from 1 to 0 (Esser et al. 2024), so that drawing
    u evenly visits every s as often as the sampler does. Of a model that was distilled to a few steps, `sigmas` are
    those steps and no others are drawn.
    """

    shift: float = 1.0
    terminal: float = 0.0  # the last sigma: all are stretched to end there
    sigmas: tuple[float, ...] = ()
    num_train_timesteps: int = 1000

    def at(self, share: Tensor) -> Tensor:
        """Timesteps t of shares u of the schedule, float32."""
        sigma = self.shift * share / (1 + (self.shift - 1) * share)
        return self.num_train_timesteps * (self.terminal + (1 - self.terminal) * sigma)

    def draw(self, count: Sequence[int], generator: torch.Generator, earliest: float = 0.0) -> Tensor:
        """u uniform in (earliest, 1], or the distilled steps of at least such a sigma, evenly."""
        if own := [sigma for sigma in self.sigmas if sigma > earliest]:
            chosen = torch.randint(len(own), tuple(count), generator=generator)
            return self.num_train_timesteps * torch.tensor(own)[chosen]
        return self.at(1 - (1 - earliest) * torch.rand(tuple(count), generator=generator))

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """1 - s and s, each (B, 1, 1, 1)."""
        sigma = (timesteps.float() / self.num_train_timesteps).view(-1, 1, 1, 1)
        return 1 - sigma, sigma

    def prediction(self, output: Tensor, noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
        return output

    def ideal(self, latents: Tensor, noise: Tensor) -> Tensor:
        return noise - latents

    def noise(self, prediction: Tensor, noisy_latents: Tensor, timesteps: Tensor) -> Tensor:
        """x_t + (1 - s) v."""
        signal, _ = self.coefficients(timesteps)
        return noisy_latents + signal * prediction


def add_noise(schedule: Schedule, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t = signal x_0 + sigma noise."""
    signal, sigma = schedule.coefficients(timesteps)
    return signal * latents + sigma * noise
