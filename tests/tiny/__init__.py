"""Tiny pipelines of every supported class, with random weights and tokenizers trained here."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from advanchor import models
from advanchor.models.base import Base
from tiny.chat import qwen_image, z_image
from tiny.cross_attention import pixart, sana
from tiny.flux import flux
from tiny.flux2 import flux2_dev, flux2_klein
from tiny.stable_diffusion import sd3, sdxl

BUILD: dict[str, Callable[[], Any]] = {
    "sdxl": sdxl,
    "sd35": sd3,
    "sd3_without_t5": lambda: sd3((), t5=False),
    "flux_dev": flux,
    "flux_schnell": lambda: flux(False),
    "pixart": pixart,
    "sana": sana,
    "flux2_klein": flux2_klein,
    "flux2_dev": flux2_dev,
    "qwen_image": qwen_image,
    "z_image": z_image,
}


@cache
def base_of(name: str) -> Base:
    """One that all tests of a process share: they leave it as it was."""
    torch.manual_seed(0)
    pipeline = BUILD[name]()
    pipeline.set_progress_bar_config(disable=True)
    return models.of_pipeline(pipeline, name=name, digest=name)
