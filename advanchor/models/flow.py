"""What pipelines of rectified flow share: their schedule, their sampler, and latents packed 2 x 2 into tokens."""

import math
from typing import Any

import numpy as np
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from advanchor.models import solvers
from advanchor.models.base import Base
from advanchor.models.schedule import FlowSchedule


class FlowBase(Base):
    """A pipeline with FlowMatchEulerDiscreteScheduler, whose sigmas may be shifted by the number of picture tokens."""

    backbone_name = "transformer"
    distilled_steps = 0  # of a model that was distilled to so few steps; 0: it was not

    @property
    def num_tokens(self) -> int:
        """Tokens of a picture: the latents' 2 x 2 patches."""
        return self.latent_shape[1] * self.latent_shape[2] // 4

    def mu(self, num_steps: int) -> float:
        """The logarithm of the shift at this size of picture."""
        c = self.scheduler_config
        sizes = c.get("base_image_seq_len", 256), c.get("max_image_seq_len", 4096)
        return calculate_shift(self.num_tokens, *sizes, c.get("base_shift", 0.5), c.get("max_shift", 1.15))

    def timesteps(self, num_steps: int) -> dict[str, Any]:
        """What the pipeline tells its scheduler beside the number of steps."""
        return {"sigmas": np.linspace(1.0, 1 / num_steps, num_steps), "mu": self.mu(num_steps)}

    def make_schedule(self) -> FlowSchedule:
        c, steps = self.scheduler_config, self.distilled_steps
        if steps:
            own = solvers.flow(self.pipeline.scheduler, steps, **self.timesteps(steps))
            return FlowSchedule(sigmas=tuple(own.sigmas[:-1].tolist()))
        shift = math.exp(self.mu(num_steps=50)) if c.get("use_dynamic_shifting") else float(c.get("shift", 1.0))
        return FlowSchedule(shift, terminal=c.get("shift_terminal") or 0.0)

    def scheduler(self, solver: str, num_steps: int) -> Any:
        return solvers.flow(self.pipeline.scheduler, num_steps, **self.timesteps(num_steps))


def latent_side(pipeline: Any) -> int:
    """Of a pipeline whose transformer takes any size: that of the pictures its VAE was trained on."""
    own = getattr(pipeline.vae.config, "sample_size", None)
    return own // pipeline.vae_scale_factor if own else pipeline.default_sample_size


def patches(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w / 4, 4 C): 2 x 2 patches as tokens."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def whole(tokens: Tensor, height: int, width: int) -> Tensor:
    """What `patches` took apart."""
    b, _, c = tokens.shape
    parts = tokens.view(b, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(b, c // 4, height, width)
