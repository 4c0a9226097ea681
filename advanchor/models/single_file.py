"""Checkpoints in one .safetensors file, in the names of Stability's, Black Forest Labs' and ComfyUI's code.

diffusers converts them (`from_single_file`), given a folder with the pipeline's configuration and tokenizers. Parts
that the file does not hold, as T5 in most files of SD3 and FLUX, come from that folder.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from advanchor.models import folders
from advanchor.models.folders import SAFE, WEIGHTLESS, ModelError, pipeline_class

STARTS = {  # how the names of a part's tensors begin in a checkpoint; of the denoiser every file has some
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
}
T5 = ("text_encoders.t5xxl.",)


def shapes(path: Path) -> dict[str, Tensor]:
    """A file's tensors by name, on the meta device: only its header is read. ModelError for another kind of file."""
    try:
        with safe_open(path, "pt") as file:
            return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is no whole {SAFE} file: {str(error)[:200]}") from error


def family(path: Path) -> str:
    """The hub id of the pipeline that diffusers takes a checkpoint for. Raises ModelError for one that it refuses."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    try:
        return str(fetch_diffusers_config(shapes(path))["pretrained_model_name_or_path"])
    except (KeyError, IndexError, UnboundLocalError, ValueError) as error:
        raise ModelError(f"single_file {path}: diffusers does not know its family: give `config` beside it") from error


def lacking(path: Path, folder: Path) -> list[str]:
    """Parts of the pipeline that a checkpoint does not hold."""
    names, found = shapes(path), []
    for part, kind in folders.parts(folder):
        starts = T5 if kind.startswith("T5") else STARTS.get(part)
        if starts and not any(name.startswith(starts) for name in names):
            found.append(part)
    return found


def check(path: Path, folder: Path) -> None:
    """Raises ModelError for a family that is not supported, and for a part that neither file nor folder has."""
    import diffusers

    kind = pipeline_class(folder)
    if not hasattr(getattr(diffusers, kind), "from_single_file"):
        raise ModelError(f"diffusers loads no {kind} from a single file: give a diffusers folder")
    for part, _ in folders.parts(folder):
        if not (folder / part).is_dir():
            raise ModelError(f"config {folder} has no {part}/, which its model_index.json asks for")
        if not part.startswith(WEIGHTLESS) and not (folder / part / "config.json").is_file():
            raise ModelError(f"config {folder} has no {part}/config.json")
    for part in lacking(path, folder):
        try:
            folders.variant_of(folder, part)
        except ModelError as error:
            raise ModelError(f"single_file {path} does not hold the {part}, and {error}") from error


def load(path: Path, folder: Path, dtype: torch.dtype, unused: dict[str, None]) -> Any:
    """The pipeline; `unused`: parts that it is to be without. Raises ModelError where the file lacks a tensor."""
    import diffusers

    kinds = dict(folders.parts(folder))
    apart = {part: from_folder(folder, part, kinds[part], dtype) for part in lacking(path, folder)}
    own_class = getattr(diffusers, pipeline_class(folder))
    try:
        return own_class.from_single_file(
            str(path), config=str(folder), dtype=dtype, local_files_only=True, **apart, **unused
        )
    except NotImplementedError as error:  # what is still on the meta device cannot be converted
        raise ModelError(
            f"single_file {path} lacks tensors that {folder} asks for: another family's config?"
        ) from error


def from_folder(folder: Path, part: str, kind: str, dtype: torch.dtype) -> nn.Module:
    """One part of a pipeline's folder."""
    library = next(name for name in ("transformers", "diffusers") if hasattr(importlib.import_module(name), kind))
    own_class = getattr(importlib.import_module(library), kind)
    return own_class.from_pretrained(
        folder / part,
        dtype=dtype,
        variant=folders.variant_of(folder, part),
        use_safetensors=True,
        local_files_only=True,
    )
