"""Sampling: from noise to clean latents, by a pipeline's own scheduler or by one of ours."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning, join


def initial_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Standard normal noise (len(seeds), *shape) on the CPU: image i depends on seeds[i] alone, on any machine."""
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def guided_output(
    base: Base,
    module: nn.Module,
    latents: Tensor,  # (B, C, h, w), as the scheduler wants them for the model
    timestep: Tensor,  # ()
    conditioning: Conditioning,  # B rows
    null: Conditioning,  # one row, or B: what guidance leads away from
    guidance: float,
) -> Tensor:
    """What the scheduler is given (B, C, h, w): guided by two forwards in one, by a number that the model is told, or
    not at all, as the base is made."""
    times = timestep.expand(len(latents)).to(latents.device)
    if base.guided != "classifier_free":
        return base.denoise(module, latents, times, conditioning, guidance)
    both = join(null.rows(torch.zeros(len(latents), dtype=torch.long)) if len(null) == 1 else null, conditioning)
    doubled = torch.cat([latents, latents])
    unconditional, conditional = base.denoise(module, doubled, torch.cat([times, times]), both).chunk(2)
    return base.combined(unconditional, conditional, guidance)


@torch.no_grad()
def sample_latents(
    base: Base,
    module: nn.Module,
    noise: Tensor,  # (B, C, h, w)
    conditioning: Conditioning,  # B rows
    null: Conditioning,  # one row: base.unconditional()
    *,
    num_steps: int,
    guidance: float,
    solver: str = "ddim",
) -> Tensor:
    """Clean latents (B, C, h, w). `solver`: a key of solvers.SOLVERS, or "own"; flow models always have their own."""
    scheduler = base.scheduler(solver, num_steps)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        output = guided_output(base, module, scaled, timestep, conditioning, null, guidance)
        latents = scheduler.step(output, timestep, latents).prev_sample
    return latents
