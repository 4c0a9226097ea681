"""An erasure as files: delta and anchor in safetensors, byte for byte the same for the same numbers.

The delta file holds dW (not W + dW: rounding a sum to fp16 would cost the delta some percent) and the sha256 of every
base tensor that it changes, so that it is never applied to another model. Metadata is one JSON value under one key,
because safetensors writes several keys in random order; with it stands the sha256 of all that the file says, which is
compared on every reading.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.digests import tensor_digests

FORMAT = 2
CONTENT = "content_sha256"
BASE_TENSORS, BASE_DTYPE = "base_tensors", "base_dtype"
METADATA_KEY = "advanchor"
RESULT, FUSED = "result.json", "fused.json"  # what says of a folder's files what they are
NAMED = re.compile(r"[a-z_]+-([0-9a-f]{16})\.[a-z]+")  # a file that is named by its content
Buffer = bytes | memoryview


class ArtifactError(ValueError):
    """A file that is not what it should be, or that does not belong to this model."""


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A safetensors file in memory. Raises ArtifactError for a tensor with a value that is not finite."""
    ordered = {name: tensors[name].contiguous() for name in sorted(tensors)}
    if name := first_not_finite(ordered):
        raise ArtifactError(f"tensor {name!r} has values that are not finite, and is not written")
    told = {"format": FORMAT, **metadata}
    told[CONTENT] = content_digest(ordered, told)
    return save(ordered, {METADATA_KEY: json.dumps(told, sort_keys=True)})


def first_not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of a tensor with an infinite value or a NaN; empty if there is none."""
    return next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), "")


def content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """sha256 of all tensors with their names, types and shapes, and of the metadata but this digest."""
    told = {key: value for key, value in metadata.items() if key != CONTENT}
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode(errors="replace"))
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def from_bytes(data: bytes, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file in memory; `source` is what errors call it.

    Raises ArtifactError for what is not such a file, is damaged, or holds a value that is not finite.
    """
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header["__metadata__"][METADATA_KEY])
        found = metadata["format"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{source} is not a delta or anchor of this program: {error}") from error
    if found != FORMAT:
        raise ArtifactError(f"{source} has format {found}; this version reads format {FORMAT}: make it again")
    if metadata.get(CONTENT) != content_digest(tensors, metadata):
        raise ArtifactError(f"{source} is damaged: its sha256 is not the one that it was written with")
    if name := first_not_finite(tensors):
        raise ArtifactError(f"{source}: tensor {name!r} has values that are not finite")
    return tensors, metadata


def views(data: Buffer, source: str) -> dict[str, Tensor]:
    """The tensors of a file in memory, without a copy, to be read only. Raises ArtifactError."""
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:start]))
        return {name: view(data, start, entry) for name, entry in header.items() if name != "__metadata__"}
    except (AttributeError, KeyError, OverflowError, RecursionError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{source} is not a file of tensors: {error}") from error


def view(data: Buffer, start: int, entry: Mapping[str, Any]) -> Tensor:
    dtype = {"F16": torch.float16, "F32": torch.float32, "F64": torch.float64}[entry["dtype"]]
    first, last = entry["data_offsets"]
    count = (last - first) // dtype.itemsize
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(data, dtype=dtype, count=count, offset=start + first).view(entry["shape"])


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors. Raises ArtifactError."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})[METADATA_KEY])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not a delta or anchor of this program: {error}") from error


def delta_to_bytes(delta: Mapping[str, Tensor], base: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A delta file; `base` holds the base's tensors under the delta's names. Raises ArtifactError."""
    told = {BASE_TENSORS: {name: tensor_digests(base[name]) for name in sorted(delta)}}
    dtypes = sorted({str(base[name].dtype).removeprefix("torch.") for name in delta})
    return to_bytes(delta, {**metadata, **told, BASE_DTYPE: dtypes[0] if len(dtypes) == 1 else "mixed"})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def erasure_files(
    delta: Mapping[str, Tensor],
    anchor: Mapping[str, Tensor | None],
    base: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
) -> dict[str, bytes]:
    """delta.safetensors and, where the method finds an anchor, anchor.safetensors; `base`: as in delta_to_bytes."""
    files = {"delta.safetensors": delta_to_bytes(delta, base, metadata)}
    found = {name: tensor for name, tensor in anchor.items() if tensor is not None}
    return files | {"anchor.safetensors": to_bytes(found, metadata)} if found else files


def describe(base: Base, concept: Concept, settings: BaseModel, seed: int) -> dict[str, Any]:
    """The metadata that an erasure's files carry."""
    return {
        "base": base.name,
        "base_digest": base.digest,
        **({"base_made_of": base.made_of} if base.made_of else {}),
        "profile": base.profile.to_json(),
        "concept": concept.model_dump(mode="json"),
        "method": settings.model_dump(mode="json"),
        "seed": seed,
    }


def read_checked(path: Path) -> bytes:
    """A file's bytes, compared with every sha256 that is known of it. Raises ArtifactError, FileNotFoundError.

    A run directory's files have it in their names, and result.json or fused.json beside them has it in full.
    """
    data = path.read_bytes()
    digest = sha256(data)
    named = NAMED.fullmatch(path.name)
    if (named and not digest.startswith(named[1])) or listed(path.parent).get(path.name, digest) != digest:
        raise ArtifactError(f"{path} is damaged: its sha256 is {digest[:16]}, which is not what it was written with")
    return data


def listed(folder: Path) -> dict[str, str]:
    """sha256 of a task's or a fusion's files by name, where result.json or fused.json says it. Raises ArtifactError."""
    for index in (folder / RESULT, folder / FUSED):
        if not index.is_file():
            continue
        try:
            files = json.loads(index.read_bytes())["files"]
            found = {str(entry.get("name", key)): str(entry["sha256"]) for key, entry in files.items()}
            return {name: digest for name, digest in found.items() if "/" not in name}
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ArtifactError(f"{index} is damaged, so its files cannot be checked: {shorten(error)}") from error
    return {}


def shorten(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
