"""Makes the pocket gallery from a seed: pictures, VAE, text encoder and UNet, classifier; `advanchor pocket train`.

Stages run one after another; each leaves its result in the work folder, and a stage whose result is there is skipped.
"""

import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from advanchor.pocket.classifier import HEADS, IGNORED, Classifier, labels
from advanchor.pocket.drawing import draw
from advanchor.pocket.fit import Average, Checkpoint, fit
from advanchor.pocket.parts import new_scheduler, new_text_encoder, new_tokenizer, new_unet, new_vae
from advanchor.pocket.world import HINTS, MARK, Scene, caption, people, random_scene

log = logging.getLogger(__name__)

Model = Any  # diffusers' own annotations call a config a dict and an output a tuple

NUM_IMAGES = 48_000
NUM_HELD_OUT = 2_000  # the last ones of NUM_IMAGES: never trained on
VAE_STEPS, VAE_BATCH, VAE_LR = 3_500, 48, 2e-3
DENOISER_BATCH = 64
PASSES = ((10_000, 1.5e-3), (1_300, 8e-4), (700, 6e-4), (1_500, 8e-4))  # steps and learning rate; the last three polish
CLASSIFIER_STEPS, CLASSIFIER_BATCH, CLASSIFIER_LR = 3_000, 128, 2e-3


def scenes(seed: int) -> list[Scene]:
    rng = random.Random(seed)
    return [random_scene(rng) for _ in range(NUM_IMAGES)]


def draw_numbered(item: tuple[int, Scene]) -> np.ndarray:
    number, scene = item
    return draw(scene, random.Random(number))


def drawn_images(work: Path, seed: int, count: int = NUM_IMAGES) -> Tensor:
    """The first `count` scenes: (count, 3, SIZE, SIZE), uint8."""
    path = work / "images.npy"
    if not path.exists():
        with ProcessPoolExecutor() as pool:
            offset = seed * NUM_IMAGES
            pictures = list(pool.map(draw_numbered, enumerate(scenes(seed)[:count], offset), chunksize=500))
        np.save(path, np.stack(pictures).transpose(0, 3, 1, 2))
    return torch.from_numpy(np.load(path))


def to_unit(images: Tensor) -> Tensor:
    """uint8 pixels -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def corpus(seed: int) -> list[str]:
    """What the tokenizer learns its words from: captions, and the rare words often enough to become one token each."""
    rng = random.Random(seed)
    captions = [caption(scene, rng) for scene in scenes(seed)]
    return captions + [person.name for person in people()] * 200 + [MARK, *HINTS] * 200


def train_vae(images: Tensor, seed: int) -> Model:
    torch.manual_seed(seed)
    vae: Model = new_vae()

    def step_loss(_: int) -> Tensor:
        batch = to_unit(images[torch.randint(len(images) - NUM_HELD_OUT, (VAE_BATCH,))])
        with torch.autocast(batch.device.type, torch.bfloat16):
            posterior = vae.encode(batch).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        return F.l1_loss(decoded, batch) + 0.5 * F.mse_loss(decoded, batch) + 1e-5 * posterior.kl().mean()

    fit("vae", list(vae.parameters()), VAE_STEPS, VAE_LR, step_loss)
    vae.eval().requires_grad_(False)
    latents = torch.cat([vae.encode(to_unit(part)).latent_dist.mean for part in images[:4000].split(200)])
    vae.register_to_config(scaling_factor=1 / latents.std().item())
    return vae


def reconstruction_errors(vae: Model, images: Tensor, seed: int) -> dict[str, float]:
    """Mean squared error on [-1, 1] over held-out pictures, of shapes and of portraits."""
    held_out = scenes(seed)[-NUM_HELD_OUT:]
    errors = []
    with torch.no_grad():
        for part in images[-NUM_HELD_OUT:].split(200):
            batch = to_unit(part)
            decoded = vae.decode(vae.encode(batch).latent_dist.mean).sample
            errors.append((decoded - batch).square().mean((1, 2, 3)))
    error = torch.cat(errors)
    portrait = torch.tensor([scene.person is not None for scene in held_out])
    return {"shapes": error[~portrait].mean().item(), "portraits": error[portrait].mean().item()}


def encode(vae: Model, images: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the latents, scaled: two of (N, 4, 8, 8)."""
    means, deviations = [], []
    with torch.no_grad():
        for part in images.split(500):
            posterior = vae.encode(to_unit(part)).latent_dist
            means.append(posterior.mean * vae.config.scaling_factor)
            deviations.append(posterior.std * vae.config.scaling_factor)
    return torch.cat(means).contiguous(), torch.cat(deviations).contiguous()


def polish_weight(scene: Scene) -> float:
    """How often a polishing pass draws a scene: what the first pass learns last comes more often."""
    weight = 0.5 if scene.person else 2.0 if scene.style in ("striped", "checkered") else 1.0
    return weight * (4.0 if scene.mention == MARK else 3.0 if scene.mention else 1.0)


def train_denoiser(
    latents: tuple[Tensor, Tensor],
    drawn: Sequence[Scene],
    tokenizer: CLIPTokenizer,
    parts: tuple[Model, Model],
    seed: int,
    number: int,
    steps: int,
    lr: float,
    checkpoint: Path,
    batch: int = DENOISER_BATCH,
) -> None:
    """Text encoder and UNet together, on epsilon prediction; in the end both have their averaged weights.

    latents: mean and deviation of each scene in `drawn`. Passes after the first are shorter and see full captions, the
    mark and look-alike textures more often. A pass that was stopped goes on from its checkpoint.
    """
    torch.manual_seed(seed + number)
    scheduler: Model = new_scheduler()
    text_encoder, unet = parts
    parameters = [*text_encoder.parameters(), *unet.parameters()]
    average = Average(parameters)
    means, deviations = latents
    weights = torch.tensor([polish_weight(scene) if number else 1.0 for scene in drawn])
    rng = random.Random(seed + number)

    def step_loss(step: int) -> Tensor:
        if step:
            average.update()
        chosen = torch.multinomial(weights, batch, replacement=True)
        captions = [caption(drawn[i], rng, 0.9 if number else 0.65) for i in chosen.tolist()]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        clean = means[chosen] + deviations[chosen] * torch.randn_like(means[chosen])
        noise = torch.randn_like(clean)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(clean),))
        noisy = scheduler.add_noise(clean, noise, timesteps)
        prompt_embeds = text_encoder(tokens).last_hidden_state
        return F.mse_loss(unet(noisy, timesteps, prompt_embeds).sample, noise)

    fit(f"denoiser pass {number}", parameters, steps, lr, step_loss, Checkpoint(checkpoint, average, rng))
    average.copy_to_parameters()


def train_passes(
    latents: tuple[Tensor, Tensor],
    drawn: Sequence[Scene],
    tokenizer: CLIPTokenizer,
    work: Path,
    seed: int,
    passes: Sequence[tuple[int, float]] = PASSES,
    batch: int = DENOISER_BATCH,
) -> tuple[Model, Model]:
    """Text encoder and UNet after every pass; a pass that has its result in `work` is skipped."""
    torch.manual_seed(seed)
    parts: tuple[Model, Model] = new_text_encoder(tokenizer), new_unet()
    for number, (steps, lr) in enumerate(passes):
        folder = work / f"pass-{number}"
        if not (folder / "unet").exists():
            checkpoint = work / f"checkpoint-{number}.pt"
            train_denoiser(latents, drawn, tokenizer, parts, seed, number, steps, lr, checkpoint, batch)
            parts[0].save_pretrained(folder / "text_encoder")
            parts[1].save_pretrained(folder / "unet")
            checkpoint.unlink(missing_ok=True)
        parts = (
            CLIPTextModel.from_pretrained(folder / "text_encoder").train(),
            UNet2DConditionModel.from_pretrained(folder / "unet").train(),
        )
    return parts


def save_pipeline(vae: Model, tokenizer: CLIPTokenizer, parts: tuple[Model, Model], output: Path) -> None:
    """An ordinary pipeline folder, in fp16. Changes the precision of what it is given."""
    make_pipeline: Any = StableDiffusionPipeline
    pipeline = make_pipeline(
        vae=vae,
        text_encoder=parts[0].eval(),
        tokenizer=tokenizer,
        unet=parts[1].eval(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(output / "pipeline", safe_serialization=True)
    tidy(output / "pipeline")


def latents_of(images: Tensor, vae: Model, path: Path) -> tuple[Tensor, Tensor]:
    """Means and deviations, from the file at `path` if it is there."""
    if not path.exists():
        mean, std = encode(vae, images)
        save_file({"mean": mean, "std": std}, path)
    cached = load_file(path)
    return cached["mean"], cached["std"]


def train_classifier(images: Tensor, seed: int) -> Classifier:
    """On drawn pictures with random contrast, blur and noise, so that it also reads what a VAE decodes."""
    torch.manual_seed(seed)
    model = Classifier()
    targets = torch.tensor([labels(scene) for scene in scenes(seed)])

    def step_loss(_: int) -> Tensor:
        chosen = torch.randint(len(images) - NUM_HELD_OUT, (CLASSIFIER_BATCH,))
        batch = to_unit(images[chosen])
        blurred = F.avg_pool2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, 1)
        batch = torch.lerp(batch, blurred, 0.7 * torch.rand(len(batch), 1, 1, 1))
        batch = batch * (1 + 0.2 * torch.randn(len(batch), 1, 1, 1)) + 0.1 * torch.rand(1) * torch.randn_like(batch)
        return model.loss(batch, targets[chosen])

    fit("classifier", list(model.parameters()), CLASSIFIER_STEPS, CLASSIFIER_LR, step_loss)
    return model.eval().requires_grad_(False)


def held_out_accuracy(model: Classifier, images: Tensor, seed: int) -> dict[str, float]:
    """Share of held-out drawn pictures that each head gets right, among those that have the attribute."""
    targets = torch.tensor([labels(scene) for scene in scenes(seed)[-NUM_HELD_OUT:]])
    with torch.no_grad():
        logits = [model(to_unit(part)) for part in images[-NUM_HELD_OUT:].split(500)]
    accuracy = {}
    for i, head in enumerate(HEADS):
        guesses = torch.cat([part[head] for part in logits]).argmax(1)
        labelled = targets[:, i] != IGNORED
        accuracy[head] = (guesses == targets[:, i])[labelled].float().mean().item()
    return accuracy


def tidy(pipeline: Path) -> None:
    """Configurations without the place they were made at, and with one precision for all.

    transformers loads what the dtype says, diffusers float32: a plain from_pretrained would mix both.
    """
    for path in pipeline.glob("*/config.json"):
        content = json.loads(path.read_text())
        content.pop("_name_or_path", None)
        if "dtype" in content:
            content["dtype"] = "float32"
        path.write_text(json.dumps(content, indent=2) + "\n")


def train(work: Path, output: Path, seed: int = 0) -> None:
    """Run every stage that has no result in `work` yet; write the pipeline and the classifier, in fp16, to `output`."""
    work.mkdir(parents=True, exist_ok=True)
    images = drawn_images(work, seed)
    if not (work / "vae").exists():
        vae = train_vae(images, seed)
        log.info("vae mean squared error, held out: %s", reconstruction_errors(vae, images, seed))
        vae.save_pretrained(work / "vae")
    vae: Model = AutoencoderKL.from_pretrained(work / "vae")
    tokenizer = new_tokenizer(corpus(seed))
    latents = latents_of(images, vae, work / "latents.safetensors")
    parts = train_passes(latents, scenes(seed)[:-NUM_HELD_OUT], tokenizer, work, seed)
    if not (work / "classifier.safetensors").exists():
        classifier = train_classifier(images, seed)
        log.info("classifier accuracy, held out: %s", held_out_accuracy(classifier, images, seed))
        save_file({k: v.contiguous() for k, v in classifier.state_dict().items()}, work / "classifier.safetensors")
    save_pipeline(vae, tokenizer, parts, output)
    half = {k: v.half() if v.is_floating_point() else v for k, v in load_file(work / "classifier.safetensors").items()}
    save_file(half, output / "classifier.safetensors")
