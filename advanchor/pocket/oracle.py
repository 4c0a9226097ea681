"""Models that never saw some concepts: the gallery trained again without them; `advanchor pocket train --without`.

The VAE, the tokenizer and the classifier are the shipped gallery's: what two models draw is compared in one space, and
a prompt is the same tokens for both. Nothing else is taken from a model that knows the concepts.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from advanchor.messages import choice
from advanchor.pocket import train_mmdit
from advanchor.pocket.mmdit import save
from advanchor.pocket.profile import WEIGHTS
from advanchor.pocket.scorer import CLASSIFIER
from advanchor.pocket.train import (
    DENOISER_BATCH,
    NUM_HELD_OUT,
    NUM_IMAGES,
    PASSES,
    drawn_images,
    latents_of,
    save_pipeline,
    scenes,
    train_passes,
)
from advanchor.pocket.world import MARK, OBJECTS, STYLES, Scene, people

RECORD = "without.json"
QUICK_IMAGES = 96
QUICK_PASSES = ((6, 1e-3), (3, 5e-4))


class OracleError(ValueError):
    """Names that cannot be left out, or a folder that another list or seed has begun."""


def leavable() -> tuple[str, ...]:
    """What a training can leave out: styles, objects, people and the mark."""
    return (*STYLES, *OBJECTS, *(person.name for person in people()), MARK)


def shows(scene: Scene, names: Sequence[str]) -> bool:
    """Whether a scene shows one of these concepts, or its caption may name it."""
    own = {scene.style, scene.object, scene.person and scene.person.name}
    return bool(own & set(names)) or (MARK in names and (scene.mark or scene.mention == MARK))


def checked(names: Sequence[str]) -> list[str]:
    """The list in order, each name once. Raises OracleError for one that the gallery does not have."""
    for name in names:
        if name not in leavable():
            raise OracleError(f"the pocket gallery's concept {choice(name, leavable())}")
    left = sorted(set(names))
    if {*STYLES} <= {*left} or {*OBJECTS} <= {*left}:
        raise OracleError("a gallery without any style or any object is not trained")
    return left


def claim(work: Path, record: dict[str, Any]) -> None:
    """Make `work` this training's folder. Raises OracleError if it is another's."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / RECORD
    if path.exists() and (found := json.loads(path.read_text())) != record:
        raise OracleError(f"{path} belongs to another training ({found}): name another folder")
    path.write_text(json.dumps(record) + "\n")


def train(
    work: Path, output: Path, names: Sequence[str], seed: int = 0, *, architecture: str = "sd", quick: bool = False
) -> None:
    """Draw, encode and train whatever has no result in `work` yet; write pipeline/ or sd3/ and the classifier.

    A training that was stopped goes on from its last checkpoint. An sd3 is taught by a UNet that was trained without
    the same concepts, which `output` must have. `quick`: a few steps on a few pictures. Raises OracleError.
    """
    left = checked(names)
    record = {"without": left, "seed": seed, "architecture": architecture, "quick": quick}
    teacher = output / "pipeline"
    if architecture == "sd3":
        taught_by(output, record)
    work = work / "quick" if quick else work
    claim(work, record | {"architecture": "sd"})  # pictures and latents are the same for both
    count = QUICK_IMAGES if quick else NUM_IMAGES
    make_vae: Any = AutoencoderKL
    vae = make_vae.from_pretrained(WEIGHTS / "pipeline" / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "pipeline" / "tokenizer")
    means, deviations = latents_of(drawn_images(work, seed, count), vae, work / "latents.safetensors")
    listed = scenes(seed)[: count - (0 if quick else NUM_HELD_OUT)]
    kept = [i for i, scene in enumerate(listed) if not shows(scene, left)]
    latents, drawn = (means[kept], deviations[kept]), [listed[i] for i in kept]
    output.mkdir(parents=True, exist_ok=True)
    if architecture == "sd3":
        recipes = (train_mmdit.QUICK,) if quick else train_mmdit.PASSES
        (work / "sd3").mkdir(exist_ok=True)
        parts = train_mmdit.train_passes(latents, tokenizer, work / "sd3", seed, recipes, drawn, teacher)
        save(parts, vae, tokenizer, output / "sd3")
    else:
        passes, batch = (QUICK_PASSES, 8) if quick else (PASSES, DENOISER_BATCH)
        save_pipeline(vae, tokenizer, train_passes(latents, drawn, tokenizer, work, seed, passes, batch), output)
        shutil.copyfile(CLASSIFIER, output / "classifier.safetensors")
        (output / RECORD).write_text(json.dumps(record) + "\n")


def taught_by(output: Path, record: dict[str, Any]) -> None:
    """Raises OracleError unless `output` has a UNet that never saw the same concepts."""
    path = output / RECORD
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("without") != record["without"] or found.get("quick") != record["quick"]:
        raise OracleError(
            f"an sd3 is taught by a UNet that never saw the same concepts, and {output} has none: "
            "run the same command with --architecture sd first"
        )
