"""Conditioning, noising, predicting and sampling: pure functions over latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor, nn

SOLVERS: dict[str, Any] = {  # dpm: DPM-Solver++(2M), good from 10 steps on
    "ddim": DDIMScheduler,
    "dpm": DPMSolverMultistepScheduler,
}


@dataclass(frozen=True)
class Conditioning:
    """What a UNet is told beside x_t and t: rows of prompt embeddings and, for some architectures, more per row."""

    prompt_embeds: Tensor  # (B, L, D), or (concepts, B, L, D) where `rows` was asked for (concepts, B)
    added: dict[str, Tensor] = field(default_factory=dict)  # diffusers' added_cond_kwargs, each (B, ...)

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def rows(self, index: Tensor | slice) -> "Conditioning":
        return Conditioning(self.prompt_embeds[index], {key: value[index] for key, value in self.added.items()})

    def with_embeds(self, prompt_embeds: Tensor) -> "Conditioning":
        return Conditioning(prompt_embeds, self.added)


def join(*parts: Conditioning) -> Conditioning:
    """One Conditioning with the rows of all parts, so that one forward serves them all."""
    added = {key: torch.cat([part.added[key] for part in parts]) for key in parts[0].added}
    return Conditioning(torch.cat([part.prompt_embeds for part in parts]), added)


def stack(*parts: Conditioning) -> Conditioning:
    """Parts of (concepts, B, ...) as flat rows, concept by concept, and part by part within each."""
    added = {key: torch.stack([part.added[key] for part in parts], 1).flatten(0, 2) for key in parts[0].added}
    return Conditioning(torch.stack([part.prompt_embeds for part in parts], 1).flatten(0, 2), added)


@dataclass(frozen=True)
class NoiseSchedule:
    """The variance-preserving schedule that a model was trained with."""

    alphas_cumprod: Tensor  # (num_train_timesteps,)
    prediction_type: str  # "epsilon" or "v_prediction"

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), each (B, 1, 1, 1)."""
        alpha_bar = self.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise."""
    signal, sigma = schedule.coefficients(timesteps)
    return signal * latents + sigma * noise


def unet_output(unet: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
    """What the UNet itself predicts, in float32 whatever it computes in."""
    dtype = next(unet.parameters()).dtype
    added = {key: value.to(dtype) for key, value in conditioning.added.items()} or None
    embeds = conditioning.prompt_embeds.to(dtype)
    return unet(
        noisy_latents.to(dtype), timesteps, encoder_hidden_states=embeds, added_cond_kwargs=added
    ).sample.float()


def predict_noise(
    unet: nn.Module, schedule: NoiseSchedule, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """epsilon (B, C, h, w); of a model that predicts v, epsilon = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v."""
    prediction = unet_output(unet, noisy_latents, timesteps, conditioning)
    if schedule.prediction_type == "epsilon":
        return prediction
    signal, sigma = schedule.coefficients(timesteps)
    return sigma * noisy_latents + signal * prediction


def initial_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Standard normal noise (len(seeds), *shape) on the CPU: image i depends on seeds[i] alone, on any machine."""
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample_latents(
    unet: nn.Module,
    scheduler_config: Mapping[str, Any],
    noise: Tensor,  # (B, C, h, w)
    conditioning: Conditioning,  # B rows
    null: Conditioning,  # one row: the empty prompt
    *,
    num_steps: int,
    guidance: float,
    solver: str = "ddim",
) -> Tensor:
    """Clean latents (B, C, h, w) by classifier-free guidance (Ho and Salimans 2022), solved by a key of SOLVERS."""
    scheduler = SOLVERS[solver].from_config(scheduler_config)
    scheduler.set_timesteps(num_steps)
    latents = noise * scheduler.init_noise_sigma
    both = join(null.rows(torch.zeros(len(noise), dtype=torch.long)), conditioning)
    for timestep in scheduler.timesteps:
        doubled = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        unconditional, conditional = unet_output(
            unet, doubled, timestep.expand(len(doubled)).to(noise.device), both
        ).chunk(2)
        guided = unconditional + guidance * (conditional - unconditional)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    return latents
