"""Makes the art gallery from a seed: pictures, VAE, classifier, latents, MMDiT; `advanchor art train`.

Stages run one after another. Each leaves its result in the work folder, and a stage whose result is there is skipped;
one that was stopped goes on from its last checkpoint, and ends with the same weights as if it had not been.
"""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from advanchor.art import sets
from advanchor.art.classifier import HEADS, Classifier, labels
from advanchor.art.drawing import HELD_OUT, Pictures
from advanchor.art.parts import CHANNELS, new_vae
from advanchor.art.world import HINTS, Subject, caption, subjects
from advanchor.models.repeated_rows import RepeatedRowAttention
from advanchor.pocket import mmdit
from advanchor.pocket.parts import new_tokenizer
from advanchor.pocket.resumable import SHARES, Found, OutOfTimeError, Recipe, Training
from advanchor.pocket.train import encode, to_unit
from advanchor.pocket.train_mmdit import Batch, noise_levels, row_counts

log = logging.getLogger(__name__)

SHARD = 1_000  # pictures that are encoded at a time
Model = Any  # diffusers' own annotations call a config a dict and an output a tuple


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    among: tuple[Subject, ...]
    captions: int  # that the tokenizer learns its words from
    encoded: int  # pictures whose latents the MMDiT learns from
    held_out: int  # pictures that a VAE and a classifier are measured with
    vae: Recipe
    classifier: Recipe
    mmdit: Recipe


FULL = Amounts(
    subjects(),
    captions=40_000,
    encoded=32_000,
    held_out=1_000,
    vae=Recipe(pictures=96_000, batch=16, lr=1e-3, warm=2_000, held=48_000, checkpoint=25),
    classifier=Recipe(pictures=200_000, batch=64, lr=1e-3, warm=5_000, held=100_000, checkpoint=50),
    mmdit=Recipe(pictures=400_000, held=200_000, checkpoint=50),
)
QUICK = Amounts(
    subjects()[:6],
    captions=500,
    encoded=32,
    held_out=8,
    vae=Recipe(pictures=16, batch=4, warm=4, held=8, checkpoint=2),
    classifier=Recipe(pictures=16, batch=4, warm=4, held=8, checkpoint=2),
    mmdit=Recipe(pictures=16, batch=4, warm=4, held=8, checkpoint=2),
)


@dataclass(frozen=True)
class Sitting:
    """What all stages are told: where results are left, when to stop, and how many threads work."""

    work: Path
    seed: int
    threads: int
    out_of_time: Callable[[], bool]

    def run(
        self,
        name: str,
        model: Any,
        recipe: Recipe,
        batch: Callable[[int], Sequence[Any]],
        loss: Callable[[Any], Tensor],
    ) -> None:
        """Train a model's parameters on the mean of a loss over a batch's parts. Raises OutOfTimeError."""
        parameters = list(model.parameters())

        def gradients(part: Any) -> Found:
            value = loss(part)
            found = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
            return value.item(), list(found)

        def seeded(step: int) -> Sequence[Any]:
            torch.manual_seed(self.seed * 10_000_000 + step)
            return batch(step)

        checkpoint = self.work / f"{name}.pt"
        Training(parameters, recipe).run(name, seeded, gradients, checkpoint, self.out_of_time, self.threads)


class Pair(NamedTuple):
    """Pictures (B, 3, SIZE, SIZE) in [-1, 1] with noise for their latents or with labels."""

    images: Tensor
    other: Tensor

    def split(self, parts: int) -> list["Pair"]:
        return [Pair(*values) for values in zip(*(tensor.chunk(parts) for tensor in self), strict=True)]


def numbers(step: int, recipe: Recipe) -> range:
    return range(step * recipe.batch, (step + 1) * recipe.batch)


def train_vae(pictures: Pictures, sitting: Sitting, recipe: Recipe, held_out: int) -> Model:
    torch.manual_seed(sitting.seed)
    vae: Model = new_vae()

    def batch(step: int) -> Sequence[Pair]:
        images = to_unit(pictures.images(numbers(step, recipe)))
        return Pair(images, torch.randn(len(images), CHANNELS, 8, 8)).split(SHARES)

    def loss(part: Pair) -> Tensor:
        posterior = vae.encode(part.images).latent_dist
        decoded = vae.decode(posterior.mean + posterior.std * part.other).sample
        kl = posterior.kl().mean()
        return F.l1_loss(decoded, part.images) + 0.5 * F.mse_loss(decoded, part.images) + 1e-5 * kl

    sitting.run("vae", vae, recipe, batch, loss)
    vae.eval().requires_grad_(False)
    images = to_unit(pictures.images(range(HELD_OUT, HELD_OUT + held_out)))
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(100)])
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae


@torch.no_grad()
def reconstruction_error(vae: Model, pictures: Pictures, count: int) -> float:
    """Mean squared error on [-1, 1] over held-out pictures."""
    images = to_unit(pictures.images(range(HELD_OUT, HELD_OUT + count)))
    decoded = [vae.decode(vae.encode(part).latent_dist.mean).sample for part in images.split(100)]
    return F.mse_loss(torch.cat(decoded), images).item()


def roughened(images: Tensor) -> Tensor:
    """With random contrast, blur and noise, so that a classifier also reads what a VAE decodes."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.lerp(images, blurred, torch.rand(len(images), 1, 1, 1))
    return images * (1 + 0.2 * torch.randn(len(images), 1, 1, 1)) + 0.1 * torch.rand(1) * torch.randn_like(images)


def train_classifier(pictures: Pictures, sitting: Sitting, recipe: Recipe) -> Classifier:
    torch.manual_seed(sitting.seed)
    model = Classifier()

    def batch(step: int) -> Sequence[Pair]:
        chosen = numbers(step, recipe)
        targets = torch.tensor([labels(pictures.scene(number)) for number in chosen])
        return Pair(roughened(to_unit(pictures.images(chosen))), targets).split(SHARES)

    sitting.run("classifier", model, recipe, batch, lambda part: model.loss(part.images, part.other))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def held_out_accuracy(model: Classifier, pictures: Pictures, count: int) -> dict[str, float]:
    """Share of held-out drawn pictures that each head gets right."""
    chosen = range(HELD_OUT, HELD_OUT + count)
    targets = torch.tensor([labels(pictures.scene(number)) for number in chosen])
    logits = [model(to_unit(part)) for part in pictures.images(chosen).split(100)]
    guesses = {head: torch.cat([part[head] for part in logits]).argmax(1) for head in HEADS}
    return {head: (guesses[head] == targets[:, i]).float().mean().item() for i, head in enumerate(HEADS)}


def encoded(vae: Model, pictures: Pictures, count: int, sitting: Sitting) -> tuple[Tensor, Tensor]:
    """Means and deviations of the first pictures' latents: two of (count, CHANNELS, 8, 8). Raises OutOfTimeError."""
    shards = []
    for start in range(0, count, SHARD):
        path = sitting.work / f"latents-{start:06}.safetensors"
        if not path.exists():
            if sitting.out_of_time():
                raise OutOfTimeError(f"latents: {start} of {count} pictures are encoded")
            mean, std = encode(vae, pictures.images(range(start, min(start + SHARD, count))))
            save_file({"mean": mean.half(), "std": std.half()}, path)
        shards.append(load_file(path))
    return torch.cat([one["mean"] for one in shards]).float(), torch.cat([one["std"] for one in shards]).float()


def corpus(pictures: Pictures, count: int) -> list[str]:
    """What the tokenizer learns its words from: captions, and every name and hint often enough to be of whole words."""
    rng = random.Random(pictures.seed)
    captions = [caption(pictures.scene(number), rng) for number in range(count)]
    words = [*(subject.name for subject in subjects()), *(hint for hints in HINTS.values() for hint in hints)]
    return captions + words * 200


def train_mmdit(
    latents: tuple[Tensor, Tensor], tokenizer: CLIPTokenizer, pictures: Pictures, sitting: Sitting, recipe: Recipe
) -> mmdit.Parts:
    """Flow matching, of the transformer and both text encoders together."""
    parts = mmdit.new_parts(tokenizer, sitting.seed, CHANNELS)
    parts.transformer.set_attn_processor(RepeatedRowAttention())  # pyright: ignore[reportArgumentType]
    means, deviations = latents
    drawn = [pictures.scene(number) for number in range(len(means))]

    def batch(step: int) -> Sequence[Batch]:
        rng = random.Random(f"{sitting.seed}:{step}")
        chosen = torch.randint(len(means), (recipe.batch,))
        captions = [caption(drawn[i], rng) for i in chosen.tolist()]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        clean = means[chosen] + deviations[chosen] * torch.randn_like(means[chosen])
        noise, sigma = torch.randn_like(clean), noise_levels(len(clean))
        noisy = torch.lerp(clean, noise, sigma[:, None, None, None])
        return Batch(noisy, noise - clean, sigma, tokens, row_counts(len(clean))).split(SHARES)

    def loss(part: Batch) -> Tensor:
        told = mmdit.velocity(parts, part.noisy, part.sigma, part.tokens, part.rows, mixed_precision=False)
        return F.mse_loss(told, part.velocity)

    sitting.run("mmdit", torch.nn.ModuleList(parts), recipe, batch, loss)
    return parts


def sprites(among: Sequence[Subject], sitting: Sitting, folder: Path | None) -> np.ndarray:
    """The rendered emoji, from the sets in a folder; without one, of plain shapes in their stead. Raises SetError."""
    path = sitting.work / "sprites.npy"
    if not path.exists():
        np.save(path, sets.sprites(sets.fetched(folder) if folder else sets.stand_ins(among), among))
    return np.load(path)


def train(sitting: Sitting, output: Path, folder: Path | None, amounts: Amounts) -> None:
    """Run every stage that has no result in the work folder yet; write sd3/ and the classifier, in fp16, to `output`.

    Raises OutOfTimeError, after a checkpoint; OtherRecipeError for one that is not this training's; SetError.
    """
    torch.set_num_threads(1)  # the threads of `Training.run` are the cores' share
    work = sitting.work
    work.mkdir(parents=True, exist_ok=True)
    pictures = Pictures(sprites(amounts.among, sitting, folder), amounts.among, sitting.seed)
    if not (work / "vae").exists():
        vae = train_vae(pictures, sitting, amounts.vae, amounts.held_out)
        log.info("vae mean squared error, held out: %.4f", reconstruction_error(vae, pictures, amounts.held_out))
        vae.save_pretrained(work / "vae")
    make_vae: Any = AutoencoderKL
    vae: Model = make_vae.from_pretrained(work / "vae", low_cpu_mem_usage=False).eval().requires_grad_(False)
    if not (work / "classifier.safetensors").exists():
        classifier = train_classifier(pictures, sitting, amounts.classifier)
        found = held_out_accuracy(classifier, pictures, amounts.held_out)
        log.info("classifier accuracy, held out: %s", found)
        save_file({k: v.contiguous() for k, v in classifier.state_dict().items()}, work / "classifier.safetensors")
    tokenizer = new_tokenizer(corpus(pictures, amounts.captions))
    latents = encoded(vae, pictures, amounts.encoded, sitting)
    parts = train_mmdit(latents, tokenizer, pictures, sitting, amounts.mmdit)
    mmdit.save(parts, vae, tokenizer, output / "sd3")
    half = {name: value.half() for name, value in load_file(work / "classifier.safetensors").items()}
    save_file(half, output / "classifier.safetensors")
