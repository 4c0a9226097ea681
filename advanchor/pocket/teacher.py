"""What teaches the gallery's Stable Diffusion 3: the mean velocity of a noisy picture, as its UNet knows it."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel


class Teacher:
    """The shipped gallery's UNet, which knows the mean of the velocities that a drawn picture gives one sample of.

    Above CEILING the pictures teach alone: the UNet's own schedule ends at 0.94, where its errors count tenfold.
    """

    CEILING = 0.85

    def __init__(self, folder: Path) -> None:
        unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False)
        text_encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
        self.unet, self.text_encoder = unet.float().eval(), text_encoder.float().eval()
        scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
        alpha_bar = scheduler.alphas_cumprod
        self.sigmas = (1 - alpha_bar).sqrt() / (alpha_bar.sqrt() + (1 - alpha_bar).sqrt())  # of its own timesteps

    def nearest(self, sigma: Tensor) -> Tensor:
        """Its timesteps of about these noise levels."""
        return torch.searchsorted(self.sigmas, sigma).clamp(max=len(self.sigmas) - 1)

    @torch.no_grad()
    def velocity(self, noisy: Tensor, sigma: Tensor, tokens: Tensor) -> Tensor:
        """Noise - clean as it sees them in x = (1 - sigma) clean + sigma noise, at noise levels of its own."""
        level = sigma[:, None, None, None]
        scale = ((1 - level).square() + level.square()).sqrt()  # of x over the UNet's own, variance-preserving mixture
        with torch.autocast(noisy.device.type, torch.bfloat16):
            embeds = self.text_encoder(tokens).last_hidden_state
            noise = self.unet(noisy / scale, self.nearest(sigma), embeds).sample.float()
        return noise - (noisy - level * noise) / (1 - level)
