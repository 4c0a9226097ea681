"""An erasure as files: delta and anchor in safetensors, byte for byte the same for the same numbers.

The delta file holds dW (not W + dW: rounding a sum to fp16 would cost the delta some percent) and the sha256 of every
base tensor that it changes, so that it is never applied to another model. Metadata is one JSON value under one key,
because safetensors writes several keys in random order.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from advanchor.models.base import tensor_digest

FORMAT = 1
METADATA_KEY = "advanchor"
Buffer = bytes | memoryview


class ArtifactError(ValueError):
    """A file that is not what it should be, or that does not belong to this model."""


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A safetensors file in memory."""
    ordered = {name: tensors[name].contiguous() for name in sorted(tensors)}
    return save(ordered, {METADATA_KEY: json.dumps({"format": FORMAT, **metadata}, sort_keys=True)})


def unpack(data: bytes, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file in memory; `source` is what errors call it. Raises ArtifactError."""
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header["__metadata__"][METADATA_KEY])
        found = metadata["format"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{source} is not a delta or anchor of this program: {error}") from error
    if found != FORMAT:
        raise ArtifactError(f"{source} has format {found}; this version reads format {FORMAT}")
    return tensors, metadata


def views(data: Buffer, source: str) -> dict[str, Tensor]:
    """The tensors of a file in memory, without a copy, to be read only. Raises ArtifactError."""
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:start]))
        return {name: view(data, start, entry) for name, entry in header.items() if name != "__metadata__"}
    except (KeyError, TypeError, ValueError) as error:
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
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not a delta or anchor of this program: {error}") from error


def pack_delta(delta: Mapping[str, Tensor], base: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A delta file; `base` holds the base's tensors under the delta's names."""
    return pack(delta, {**metadata, "base_tensors": {name: tensor_digest(base[name]) for name in sorted(delta)}})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def apply_delta(unet: nn.Module, path: Path, scale: float = 1.0) -> None:
    """Add scale * dW to the weights of a stock UNet, in place.

    Raises ArtifactError, and changes nothing, if a tensor is missing or is not the one that the delta was made from.
    """
    tensors, metadata = unpack(path.read_bytes(), str(path))
    check_base(unet, tensors, metadata, path)
    parameters = dict(unet.named_parameters())
    for name, tensor in tensors.items():
        if tensor.shape != parameters[name].shape:
            raise ArtifactError(f"{path}: tensor {name!r} has another shape than the model's")
    with torch.no_grad():
        for name, tensor in tensors.items():
            weight = parameters[name]
            weight.copy_(weight.float() + scale * tensor.to(weight.device, torch.float32))


def check_base(module: nn.Module, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Raises ArtifactError if a tensor is missing in a module or is not the one that a file was made from.

    The digests of what the module was at first are remembered on it, so that further files of the same base may follow.
    """
    parameters = dict(module.named_parameters())
    if missing := sorted(tensors.keys() - parameters.keys()):
        raise ArtifactError(f"{path}: this model has no tensor {missing[0]!r} ({len(missing)} are missing)")
    known = module.__dict__.setdefault("advanchor_base_tensors", {})
    expected = metadata.get("base_tensors", {})
    for name in tensors:
        if name not in known:
            known[name] = tensor_digest(parameters[name])
        if known[name] != expected.get(name):
            raise ArtifactError(
                f"{path} was made from another base: tensor {name!r} has digest {known[name][:12]}, "
                f"the delta expects {str(expected.get(name))[:12]} ({metadata.get('base', 'unknown base')})"
            )
