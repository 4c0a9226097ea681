"""Erased Stable Diffusion (Gandikota et al. 2023): the student's concept becomes its own negative guidance.

    L = MSE( eps(x_t, e_c), eps0(x_t, e_null) - eta * (eps0(x_t, e_c) - eps0(x_t, e_null)) )

x_t is what the student itself has sampled, from pure noise down to t.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.sampling import guided_output, initial_noise
from advanchor.training.context import Batch, Context, Erasure, TrainingSettings
from advanchor.training.cost import Cost, sampling
from advanchor.training.engine import derived_seed, shard
from advanchor.training.loop import fit, fit_cost

VERSION = 1
PACKABLE = False  # how far the student samples is drawn per concept: packed rows would not step together


class Settings(TrainingSettings):
    name: Literal["esd"] = "esd"
    eta: float = Field(default=1.0, gt=0, description="strength of the negative guidance; the authors use 1 or 2")
    preserve_weight: float = Field(default=0.0, ge=0, description="the original has no such term")
    partial_steps: int = Field(default=20, ge=2, description="length of the student's sampling that x_t is taken from")
    partial_guidance: float = Field(default=3.0, ge=0, description="its classifier-free guidance scale")


@torch.no_grad()
def sample_partly(context: Context, settings: Settings, number: int) -> Batch:
    """The student's own x_t, (1, B, C, h, w), after a random part of a DDIM sampling; t is the same for the batch."""
    (seed,) = context.seeds
    generator = torch.Generator().manual_seed(derived_seed(seed, "partial", number))
    mine = shard(settings.batch_size, context.engine.rank, context.engine.world_size)
    device = context.base.device
    templates = torch.randint(len(context.prompts), (settings.batch_size,), generator=generator)[mine].to(device)
    steps_done = int(torch.randint(settings.partial_steps, (), generator=generator))
    seeds = [derived_seed(seed, "partial", number, row) for row in range(settings.batch_size)][mine]
    latents = initial_noise(context.base.latent_shape, seeds).to(device)
    base, e_c = context.base, context.e_c.rows(templates)
    scheduler = base.scheduler("ddim", settings.partial_steps)
    with context.student():
        for timestep in scheduler.timesteps[:steps_done]:
            guided = guided_output(
                base, context.engine.module, latents, timestep, e_c, context.null, settings.partial_guidance
            )
            latents = scheduler.step(guided, timestep, latents).prev_sample
    timesteps = scheduler.timesteps[steps_done].expand(len(latents)).to(device)
    return Batch(latents[None], timesteps[None], templates[None], [0])


def erase(context: Context, settings: Settings) -> list[Erasure]:
    null = context.null.rows(torch.zeros(len(context.prompts), dtype=torch.long))

    def target(batch: Batch) -> Tensor:
        """eps0(x_t, e_null) - eta * (eps0(x_t, e_c) - eps0(x_t, e_null))."""
        known = context.teacher_constants(batch, {"concept": context.e_c, "null": null})
        return known["null"] - settings.eta * (known["concept"] - known["null"])

    batches = (sample_partly(context, settings, number) for number in range(settings.steps))
    return fit(context, settings, batches, target)


def cost(settings: Settings, concept: Concept) -> Cost:
    """The student's own sampling of 0 to partial_steps - 1 steps, on average, and two constants for the target."""
    sampled = sampling(settings.steps * settings.batch_size, (settings.partial_steps - 1) / 2)
    return sampled + fit_cost(settings, target=2)


def problems(settings: Settings, concept: Concept) -> list[str]:
    return []
