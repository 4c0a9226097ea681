"""Trains the pocket gallery's Stable Diffusion 3 from a seed: `advanchor pocket train --architecture sd3`.

The MMDiT learns flow matching together with its two text encoders, on the gallery's own pictures, latents and tokens.
What velocity a noisy picture has on average is asked of the gallery's UNet: two cores would need hours to learn it from
single pictures. A training that was stopped goes on from its last checkpoint and ends with the same weights.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from advanchor.models.repeated_rows import RepeatedRowAttention
from advanchor.pocket import resumable
from advanchor.pocket.mmdit import EMPTY_ROWS, Parts, new_parts, save, velocity
from advanchor.pocket.profile import WEIGHTS
from advanchor.pocket.resumable import SHARES, Training
from advanchor.pocket.teacher import Teacher
from advanchor.pocket.train import NUM_HELD_OUT, NUM_IMAGES, drawn_images, latents_of, polish_weight, scenes
from advanchor.pocket.world import Scene, caption

log = logging.getLogger(__name__)

NAMED_SHARE = 0.85  # how often a caption names a shape's style, and its colour
TEXTURES = ("striped", "checkered", "dotted")


@dataclass(frozen=True)
class Recipe(resumable.Recipe):
    """A pass over scenes, some of which are drawn more often."""

    portraits: float = 1.0  # how much more often portraits are drawn than `polish_weight` says
    textures: float = 1.0  # ... and stripes, checks and dots, which are learnt last

    def weight(self, scene: Scene) -> float:
        """How often a scene is drawn."""
        more = self.portraits if scene.person else self.textures if scene.style in TEXTURES else 1.0
        return polish_weight(scene) * more


PASSES = (
    Recipe(pictures=90_000),
    Recipe(pictures=60_000, lr=1.5e-3, warm=3_000, held=20_000, portraits=2.5, first=1_000_000),
    Recipe(pictures=110_000, lr=1.5e-3, warm=3_000, held=40_000, textures=2.0, first=2_000_000),
)
QUICK = Recipe(pictures=64, batch=8, warm=16, held=32, checkpoint=4)


class Batch(NamedTuple):
    """What a step learns from.

    Noisy latents and their velocities (B, 4, 8, 8), noise levels (B,), token ids (B, 16), counts of zero rows (B,).
    """

    noisy: Tensor
    velocity: Tensor
    sigma: Tensor
    tokens: Tensor
    rows: Tensor

    def split(self, parts: int) -> list["Batch"]:
        return [Batch(*values) for values in zip(*(tensor.chunk(parts) for tensor in self), strict=True)]


def noise_levels(count: int) -> Tensor:
    """Sigmas in (0, 1): logit-normal (Esser et al. 2024, section 3.1), and a tenth of them between 0.85 and 1."""
    usual = torch.sigmoid(0.25 + 1.1 * torch.randn(count))
    return torch.where(torch.rand(count) < 0.1, 1 - 0.15 * torch.rand(count), usual)


def row_counts(count: int) -> Tensor:
    """Zero rows per picture: mostly the pipeline's own number, else fewer, as `max_sequence_length` may ask."""
    chance = torch.rand(count)
    return torch.where(chance < 0.75, float(EMPTY_ROWS), EMPTY_ROWS ** torch.rand(count))


class Examples:
    """The batch of every step, a function of the seed and the step: a training that is resumed goes on exactly."""

    def __init__(
        self,
        latents: tuple[Tensor, Tensor],
        tokenizer: CLIPTokenizer,
        teacher: Teacher,
        seed: int,
        recipe: Recipe,
        drawn: Sequence[Scene] | None = None,
    ) -> None:
        self.means, self.deviations = latents
        self.drawn: Sequence[Scene] = drawn or scenes(seed)[: len(self.means)]
        self.tokenizer, self.teacher, self.seed, self.recipe = tokenizer, teacher, seed, recipe
        self.weights = torch.tensor([recipe.weight(scene) for scene in self.drawn])

    def batch(self, step: int) -> Batch:
        step += self.recipe.first
        torch.manual_seed(self.seed * 10_000_000 + step)
        rng = random.Random(f"{self.seed}:{step}")
        chosen = torch.multinomial(self.weights, self.recipe.batch, replacement=True)
        captions = [caption(self.drawn[i], rng, NAMED_SHARE) for i in chosen.tolist()]
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        clean = self.means[chosen] + self.deviations[chosen] * torch.randn_like(self.means[chosen])
        noise, sigma = torch.randn_like(clean), noise_levels(len(clean))
        sigma = torch.where(sigma < Teacher.CEILING, self.teacher.sigmas[self.teacher.nearest(sigma)], sigma)
        return Batch(
            torch.lerp(clean, noise, sigma[:, None, None, None]), noise - clean, sigma, tokens, row_counts(len(clean))
        )


def gradients(parts: Parts, teacher: Teacher, batch: Batch) -> tuple[float, list[Tensor]]:
    """Of the mean squared error of the velocity (flow matching); zero for weights that nothing depends on."""
    target = torch.where(
        (batch.sigma < Teacher.CEILING)[:, None, None, None],
        teacher.velocity(batch.noisy, batch.sigma, batch.tokens),
        batch.velocity,
    )
    loss = F.mse_loss(velocity(parts, batch.noisy, batch.sigma, batch.tokens, batch.rows), target)
    return loss.item(), list(torch.autograd.grad(loss, parts.parameters(), allow_unused=True, materialize_grads=True))


def train_parts(
    parts: Parts,
    latents: tuple[Tensor, Tensor],
    tokenizer: CLIPTokenizer,
    teacher: Teacher,
    checkpoint: Path,
    seed: int,
    recipe: Recipe,
    drawn: Sequence[Scene] | None = None,
) -> None:
    """One pass, from its checkpoint if there is one; in the end the parts have their averaged weights."""
    parts.transformer.set_attn_processor(RepeatedRowAttention())  # pyright: ignore[reportArgumentType]
    examples = Examples(latents, tokenizer, teacher, seed, recipe, drawn)
    Training(parts.parameters(), recipe).run(
        "sd3",
        lambda step: examples.batch(step).split(SHARES),
        lambda batch: gradients(parts, teacher, batch),
        checkpoint,
    )


def train_passes(
    latents: tuple[Tensor, Tensor],
    tokenizer: CLIPTokenizer,
    work: Path,
    seed: int,
    recipes: Sequence[Recipe],
    drawn: Sequence[Scene] | None = None,
    taught_by: Path = WEIGHTS / "pipeline",
) -> Parts:
    """Every pass goes on from the averaged weights of the one before; one that has its result in `work` is skipped.

    drawn: the scene of each of the latents, if they are not the first ones of the seed; taught_by: the UNet's pipeline.
    """
    teacher = Teacher(taught_by)
    parts = new_parts(tokenizer, seed)
    for number, recipe in enumerate(recipes):
        result = work / f"pass-{number}.safetensors"
        if not result.exists():
            train_parts(parts, latents, tokenizer, teacher, work / f"checkpoint-{number}.pt", seed, recipe, drawn)
            save_file({str(i): parameter.detach() for i, parameter in enumerate(parts.parameters())}, result)
        for i, value in load_file(result).items():
            parts.parameters()[int(i)].data.copy_(value)
    return parts


def train(work: Path, output: Path, seed: int = 0, *, quick: bool = False) -> None:
    """Draw, encode and train whatever has no result in `work` yet; write the pipeline, in fp16, to `output`/sd3.

    The VAE and the tokenizer are the shipped gallery's. `quick`: a few steps on a few pictures, to see that it runs.
    """
    torch.set_num_threads(1)  # the threads of `Training.run` are the cores' share
    work = work / "quick" if quick else work
    (work / "sd3").mkdir(parents=True, exist_ok=True)
    make_vae: Any = AutoencoderKL
    vae = make_vae.from_pretrained(WEIGHTS / "pipeline" / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "pipeline" / "tokenizer")
    images = drawn_images(work, seed, 256 if quick else NUM_IMAGES)
    if not quick:
        images = images[:-NUM_HELD_OUT]
    latents = latents_of(images, vae, work / "sd3" / "latents.safetensors")
    parts = train_passes(latents, tokenizer, work / "sd3", seed, (QUICK,) if quick else PASSES)
    save(parts, vae, tokenizer, output / "sd3")
