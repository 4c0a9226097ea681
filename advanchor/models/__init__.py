"""Base models by name: "pocket", "pocket-sd3", a folder, a hub id, or what naming.py knows beside these.

A new architecture is a file here with a subclass of base.py's Base, and a line in registry.py. A new world (prompts,
captions, a scorer) is a profile.py Profile, as in advanchor/pocket/profile.py.
"""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advanchor.concepts import Prompts
from advanchor.models import folders, loras, single_file, weightless
from advanchor.models.base import Base
from advanchor.models.encoders import TextEncoder
from advanchor.models.folders import ModelError, pipeline_class
from advanchor.models.places import Place, place_of
from advanchor.models.places import resolve as resolve
from advanchor.models.profile import GENERAL, profile_of
from advanchor.models.profile import built_in as built_in
from advanchor.models.registry import ADAPTERS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # by a batch's deepspeed.precision


def adapter(folder: Path) -> type[Base]:
    """The class that loads this folder. Raises ModelError for what is not supported or not whole."""
    folders.check(folder)
    return adapter_class(pipeline_class(folder))


def adapter_class(kind: str) -> type[Base]:
    """By the name of a pipeline's class. Raises ModelError, naming the supported ones."""
    if kind not in ADAPTERS:
        raise ModelError(f"a {kind} is not supported; these are: {', '.join(ADAPTERS)}")
    module, _, name = ADAPTERS[kind].partition(":")
    return getattr(importlib.import_module(f"advanchor.models.{module}"), name)


def of_pipeline(pipeline: Any, *, name: str, digest: str | None = None) -> Base:
    """A pipeline as a base, frozen. Raises ModelError for a class that is not supported or that lacks a part."""
    return adapter_class(type(pipeline).__name__)(pipeline, name=name, digest=digest)


def backbone(pipeline: Any) -> nn.Module:
    """The part of a pipeline that denoises. Raises ModelError for a class that is not supported."""
    return getattr(pipeline, adapter_class(type(pipeline).__name__).backbone_name)


def encoders(folder: Path) -> list[TextEncoder]:
    """The text encoders of a folder's base, without weights: they know where a prompt's tokens stand. ModelError."""
    return weightless.encoders(folder, adapter_class(pipeline_class(folder)))


def default_prompts(name: str) -> Mapping[str, Prompts]:
    """What concepts of a model's are erased with; general prompts for a model that is not there: plan says so."""
    try:
        return profile_of(place_of(name).digest).prompts
    except ModelError:
        return GENERAL.prompts


def expected(pipeline_class: type) -> set[str]:
    """Names of the parts that a pipeline's class is made of."""
    return set(inspect.signature(pipeline_class.__init__).parameters)


def load(name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Base:
    """Load a base model, frozen, on a device, in the type that it computes in. Raises ModelError.

    Weights are read in their own type and converted one by one: never is there a second copy of them all.
    """
    place = place_of(name)
    place.check()
    kind = adapter_class(pipeline_class(place.folder))
    if not dtype.is_floating_point:
        raise ModelError(f"model {name!r} cannot compute in {dtype}; choices: float32, bfloat16, float16")
    try:
        pipeline = loaded(place, dtype)
        loras.fuse(pipeline, place.loras)
        if bare := [part for part in ("tokenizer", "tokenizer_2") if len(getattr(pipeline, part, None) or "many") < 3]:
            raise ModelError(f"model folder {place.folder} has no vocabulary in {bare[0]}/")
        base = kind(pipeline.to(device), name=name, digest=place.digest)
        base.made_of = place.made_of
        return base
    except ModelError:
        raise
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        where = f"single_file {place.checkpoint}" if place.checkpoint else f"model folder {place.folder}"
        raise ModelError(f"{where} cannot be loaded: {type(error).__name__}: {line}") from error


def loaded(place: Place, dtype: torch.dtype) -> Any:
    """The pipeline that is there, without the parts that erasing has no need of."""
    import diffusers

    own_class = getattr(diffusers, pipeline_class(place.folder))
    present = {part for part, _ in folders.parts(place.folder)}
    unused: dict[str, None] = dict.fromkeys(
        part for part in folders.OPTIONAL if part in expected(own_class) and part not in present - {"safety_checker"}
    )
    if place.checkpoint:
        return single_file.load(place.checkpoint, place.folder, dtype, unused)
    return own_class.from_pretrained(
        place.folder,
        dtype=dtype,
        variant=folders.check(place.folder),
        use_safetensors=True,
        local_files_only=True,
        **unused,
    )
