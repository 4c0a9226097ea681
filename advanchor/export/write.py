"""Writing exports: LoRA files, merged pipelines, single files; each checked by another tool's loader, with a card."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from advanchor import models
from advanchor.artifacts import applied, to_bytes
from advanchor.export import names, original
from advanchor.export.card import card
from advanchor.export.lora import ExportError, Lora, decompose, kohya, peft
from advanchor.export.sources import Source, sources
from advanchor.export.verify import Checker
from advanchor.models.base import Base
from advanchor.models.readers import reader_group
from advanchor.models.text import fill
from advanchor.training.projection import gram_of

Format = Literal["lora", "kohya", "diffusers", "checkpoint"]
Say = Callable[[str], None]
CHUNK = 256  # prompts that are encoded at once
MERGED = 1e-3  # what a merged model may be off: its weights are the erasure's own
HALF = torch.float16


@dataclass(frozen=True)
class Written:
    """A file or folder, and how far it is from the erasure."""

    path: Path
    loaded: float  # of what its tool's loader predicts with it, against the delta itself
    lora: Lora | None = None

    def sentence(self) -> str:
        factors = "" if self.lora is None else f"rank {self.lora.rank}, {self.lora.error:.2%} off; "
        return f"{self.path}: {factors}as diffusers loads it {self.loaded:.2%} off"


def prompts_of(source: Source) -> list[str]:
    """The prompts that a source's concepts were erased with."""
    return [fill(template, concept.name).text for concept in source.concepts for template in concept.templates]


@torch.no_grad()
def own_grams(base: Base, weights: Sequence[str], prompts: Sequence[str]) -> dict[str, Tensor]:
    """E E^T (D, D), float64, of what the prompts give to each of these weights that is a reader's, by its name."""
    kind = type(base.backbone).__name__
    groups = {name: reader_group(kind, name.removesuffix(".weight")) for name in weights}
    chunks = [prompts[start : start + CHUNK] for start in range(0, len(prompts), CHUNK)]
    grams = {
        group: gram_of(base.present(base.encode(chunk))[group].cpu() for chunk in chunks)
        for group in dict.fromkeys(groups.values())
        if group
    }
    return {name: grams[group] for name, group in groups.items() if group}


def facts_of(source: Source) -> dict[str, str]:
    """What stands in every file's metadata."""
    return {
        "format": "pt",
        "advanchor.base_digest": source.base_digest,
        "advanchor.delta_sha256": source.delta_sha256,
        **({"advanchor.base_made_of": json.dumps(source.made_of)} if source.made_of else {}),
        "advanchor.concepts": json.dumps([concept.name for concept in source.concepts]),
    }


def write_lora(base: Base, source: Source, folder: Path, form: Format, tolerance: float, checker: Checker) -> Written:
    """NAME.safetensors in `folder`. Raises ExportError, and leaves no file, where it is too far from the erasure."""
    if not hasattr(base.pipeline, "load_lora_weights"):
        raise ExportError(f"diffusers loads no LoRA into a {type(base.pipeline).__name__}: use --format diffusers")
    prompts = prompts_of(source)
    lora = decompose(source.delta, own_grams(base, list(source.delta), prompts), tolerance)
    if form == "lora":
        tensors = peft(lora.layers, base.backbone_name)
    else:
        tensors = kohya(names.kohya(base.backbone, lora.layers))
    facts = facts_of(source) | {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(lora.rank),
        "ss_network_alpha": str(lora.rank),
        "advanchor.rank": str(lora.rank),
        "advanchor.error": f"{lora.error:.6f}",
    }
    half = {name: tensor.to(HALF) for name, tensor in tensors.items()}
    written = write_file(base, source, folder, form, half, facts, bound(tolerance), checker)
    return replace(written, lora=lora)


def write_checkpoint(base: Base, source: Source, folder: Path, checker: Checker) -> Written:
    """NAME.safetensors: the whole model in one file, under its makers' names. Raises ExportError."""
    no_neurons(source)
    with applied(base.backbone, source.delta):
        tensors = {name: tensor.clone() for name, tensor in original.checkpoint(base.pipeline).items()}
    return write_file(base, source, folder, "checkpoint", tensors, facts_of(source), MERGED, checker)


def write_file(
    base: Base,
    source: Source,
    folder: Path,
    form: Format,
    tensors: dict[str, Tensor],
    facts: dict[str, str],
    most: float,
    checker: Checker,
) -> Written:
    path = folder / f"{source.name}.safetensors"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".checking-") as temporary:
        draft = Path(temporary) / path.name
        save_file(tensors, draft, facts)
        found = checked(base, source, draft, form, most, checker)
        save_file(tensors, draft, facts | {"advanchor.loaded_error": f"{found:.6f}"})
        draft.chmod(0o644)
        draft.replace(path)
    return Written(path, found)


def checked(base: Base, source: Source, draft: Path, form: Format, most: float, checker: Checker) -> float:
    """The error as loaded. Raises ExportError if it is above `most`."""
    with tempfile.TemporaryDirectory(dir=draft.parent) as temporary:
        delta = Path(temporary) / "delta.safetensors"
        delta.write_bytes(to_bytes(source.delta, {}))
        found = checker.error(base.name, delta, draft, form, prompts_of(source))
    if not found <= most:
        raise ExportError(f"{draft.name}: loaded by diffusers it is {found:.1%} off, above {most:.1%}")
    return found


def bound(tolerance: float) -> float:
    """What a loaded LoRA may be off: the factors' own error passes through the denoiser, and fp16 adds a little."""
    return 3 * tolerance + 0.01


def no_neurons(source: Source) -> None:
    if source.has_neurons:
        raise ExportError(f"{source.name} has neurons in its text encoder: advanchor fuse --pipeline writes it whole")


def write_pipeline(base: Base, source: Source, folder: Path, checker: Checker) -> Written:
    """The base with the delta added to its weights, as a diffusers folder. Raises ExportError."""
    no_neurons(source)
    path = folder / source.name
    with tempfile.TemporaryDirectory(dir=folder, prefix=".checking-") as temporary:
        draft = Path(temporary) / source.name
        with applied(base.backbone, source.delta):
            base.pipeline.save_pretrained(draft, safe_serialization=True)
        found = checked(base, source, draft, "diffusers", MERGED, checker)
        shutil.copytree(draft, path, dirs_exist_ok=True)
    return Written(path, found)


def write(base: Base, source: Source, folder: Path, form: Format, tolerance: float, checker: Checker) -> Written:
    """Raises ExportError, and leaves nothing, where the format cannot carry it or is too far off."""
    if form == "diffusers":
        return write_pipeline(base, source, folder, checker)
    if form == "checkpoint":
        return write_checkpoint(base, source, folder, checker)
    return write_lora(base, source, folder, form, tolerance, checker)


def export(place: str, folder: Path, form: Format, tolerance: float, say: Say = lambda line: None) -> list[Source]:
    """Everything in a place in one format, with README.md; returns what was exported, without its deltas.

    Raises ExportError, ArtifactError, StoreError and ModelError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done: list[Source] = []
    errors: dict[str, float] = {}
    base: Base | None = None
    with Checker() as checker:
        for source in sources(place):
            base = base or loaded(source)
            if any(source.name == other.name for other in done):  # names that differ in more than letters and digits
                source = replace(source, name=f"{source.name}-{source.delta_sha256[:8]}")
            written = write(base, source, folder, form, tolerance, checker)
            errors[written.path.name] = written.loaded
            say(written.sentence())
            done.append(replace(source, delta={}))
    found = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    card(done, found, errors).save(folder / "README.md")
    return done


def loaded(source: Source) -> Base:
    """The base of a source. Raises ModelError if it is another one by now."""
    base = models.load(source.base)
    if base.digest != source.base_digest:
        raise models.ModelError(
            f"{source.base!r} has changed since: {source.name} needs the digest {source.base_digest[:12]}"
        )
    return base
