"""Base models by name: "pocket", a folder, or a hub id with an optional revision."""

import hashlib
import json
from functools import cache
from pathlib import Path

import torch

from advanchor.models.base import Base

BUILT_IN = {"pocket": Path(__file__).parent.parent / "pocket" / "weights" / "pipeline"}
ADAPTERS: dict[str, type[Base]] = {"StableDiffusionPipeline": Base}  # by the pipeline's class in model_index.json
PARTS = ("unet", "text_encoder", "vae")


class ModelError(ValueError):
    """A base model that is not there or that this program cannot erase from."""


def resolve(name: str) -> Path:
    """The local folder of a model; a hub id is fetched, in safetensors only. Raises ModelError."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"model {name!r} is neither a folder, a hub id (owner/name[@revision]) nor {', '.join(BUILT_IN)}"
        )
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    wanted = ["model_index.json", "*/config.json", "scheduler/*", "tokenizer*/*"]
    wanted += [f"{part}*/{stem}.safetensors" for part in PARTS for stem in ("model", "diffusion_pytorch_model")]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except Exception as error:
        raise ModelError(f"model {name!r} could not be fetched from the hub: {error}") from error


def short_name(name: str) -> str:
    """The built-in name of a built-in model's folder; every other name as it is."""
    return next((short for short, folder in BUILT_IN.items() if name == str(folder)), name)


def adapter(folder: Path) -> type[Base]:
    """The class that loads this folder. Raises ModelError for a pipeline of a kind that is not supported."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"model folder {folder} has no model_index.json: it is not a diffusers pipeline")
    kind = json.loads(index.read_text()).get("_class_name")
    if kind not in ADAPTERS:
        raise ModelError(f"model folder {folder} is a {kind}; supported are {', '.join(ADAPTERS)}")
    for part in PARTS:
        if not list((folder / part).glob("*.safetensors")):
            raise ModelError(f"model folder {folder} has no {part}/*.safetensors; pickled weights are never loaded")
    return ADAPTERS[kind]


@cache
def digest(folder: Path) -> str:
    """sha256 of everything that decides what a model computes: configuration, tokenizer and weights."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.suffix in {".json", ".txt", ".safetensors"} and "/" in relative:
            with path.open("rb") as file:
                total.update(f"{relative} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def load(name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Base:
    """Load a base model, frozen, on a device. Raises ModelError."""
    from diffusers import StableDiffusionPipeline

    folder = resolve(name)
    kind = adapter(folder)
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, low_cpu_mem_usage=False, safety_checker=None, local_files_only=True
    )
    return kind(pipeline.to(device), name=name, digest=digest(folder))
