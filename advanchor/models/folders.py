"""A diffusers folder, checked before anything is loaded: its class, parts and weights, and that none is a pickle."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advanchor.models.readers import TRAINED_WEIGHTS, backbone_of
from advanchor.models.registry import ADAPTERS

LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")  # parts that erasing has no need of
OPTIONAL = (*LEFT_OUT, "text_encoder_3", "tokenizer_3")  # parts that a pipeline may be without
WEIGHTLESS = ("tokenizer", "scheduler")  # how the names of parts without weights begin
SAFE, PICKLED = ".safetensors", (".bin", ".ckpt", ".pt", ".pth")


class ModelError(ValueError):
    """A base model that is not there or that this program cannot erase from."""


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object")
    return found


def pipeline_class(folder: Path) -> str:
    """The name of a folder's pipeline class. Raises ModelError for one that is not supported."""
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"model folder {folder} has no model_index.json: it is not a diffusers pipeline")
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind not in ADAPTERS:
        raise ModelError(f"model folder {folder} is a {kind}; supported are {', '.join(ADAPTERS)}")
    return kind


def parts(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and classes of the parts that a folder's model_index.json asks for."""
    for part, named in read_json(folder / "model_index.json").items():
        if (
            not part.startswith("_")
            and part not in LEFT_OUT
            and isinstance(named, list)
            and len(named) == 2
            and named[1]
        ):
            yield part, str(named[1])


def check(folder: Path) -> str | None:
    """The variant of a folder's weights, as "fp16", None for plain ones.

    Raises ModelError, in one line, for a class that is not supported, a part that is missing, and pickles: also those
    that only an index names.
    """
    pipeline_class(folder)
    variants = set()
    for part, _ in parts(folder):
        own = folder / part
        if not own.is_dir():
            raise ModelError(f"model folder {folder} has no {part}/, which its model_index.json asks for")
        if not part.startswith(WEIGHTLESS):
            variants.add(variant_of(folder, part))
    if len(variants) > 1:
        raise ModelError(f"model folder {folder} has weights of different variants: {', '.join(map(str, variants))}")
    return variants.pop() if variants else None


def variant_of(folder: Path, part: str) -> str | None:
    """None where a part has plain weights, else the name of the variant that it has. Raises ModelError."""
    for index in (folder / part).glob("*.index*.json"):
        named = set(map(str, read_json(index).get("weight_map", {}).values()))
        if wrong := sorted(name for name in named if not name.endswith(SAFE) or "/" in name):
            raise ModelError(f"{index} names {wrong[0]!r}: only {SAFE} files beside it are loaded, never pickles")
        if index.name.count(SAFE) and (missing := sorted(n for n in named if not (folder / part / n).is_file())):
            raise ModelError(f"{index} names {missing[0]!r}, which is not there")
    stems = sorted(path.name.removesuffix(SAFE) for path in (folder / part).glob(f"*{SAFE}"))
    if not stems:
        pickled = any(path.suffix in PICKLED for path in (folder / part).iterdir())
        why = "; pickled weights are never loaded" if pickled else ""
        raise ModelError(f"model folder {folder} has no {part}/*{SAFE}{why}")
    if any("." not in stem for stem in stems):
        return None
    return stems[0].split(".")[1].split("-")[0]


def trained_weights(folder: Path) -> list[str]:
    """What `trained_weights` can be for a folder's base, from its configuration alone. Raises ModelError."""
    named = {"unet", "transformer"} & {part for part, _ in parts(folder)}
    if not named:
        raise ModelError(f"model folder {folder} has neither a unet nor a transformer")
    (part,) = named
    config = read_json(folder / part / "config.json")
    own = dict(backbone_of(str(config.get("_class_name"))).trained_weights)
    if part == "unet" and config.get("addition_embed_type") != "text_time":
        own.pop("pooled", None)
    return [name for name in TRAINED_WEIGHTS if name in own]
