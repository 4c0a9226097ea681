"""A fusion on disk: one folder with the delta, the float64 totals that later changes start from, and fused.json.

    fused.json   [delta.safetensors]   [neurons.safetensors]   totals.safetensors   [pipeline/]   [repairs/]

The folder appears as a whole or not at all. delta.safetensors is a delta like any task's; neurons.safetensors is about
the text encoder. Which there are depends on the methods; `advanchor.apply` puts on what there is.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from advanchor.artifacts import ArtifactError, pack, pack_delta, sha256, unpack
from advanchor.concepts import Concept
from advanchor.fusion.neurons import grown
from advanchor.fusion.retain import Retain
from advanchor.fusion.solve import FusionMethod, FusionSettings
from advanchor.models.base import Base

FUSED = "fused.json"
DELTA, NEURONS, TOTALS = "delta.safetensors", "neurons.safetensors", "totals.safetensors"
PIPELINE, REPAIRS = "pipeline", "repairs"


Totals = dict[str, dict[str, Tensor]]  # method -> sums of contributions, float64


class Member(BaseModel):
    """One erased concept of a fusion, and the file that its contribution was read from."""

    model_config = ConfigDict(frozen=True)

    concept: Concept
    task: str
    method: dict[str, Any]
    base: str
    base_digest: str
    run: str  # URL of the run directory, or the fused folder that a repair belongs to
    path: str  # of the file in it
    sha256: str
    ua: float | None = None  # of the erasure on its own
    strength: float = 1.0  # how many times as much it counts in a sum of deltas; by how much its neurons speak earlier


@dataclass
class Fusion:
    """One model out of many erasures."""

    base: str
    base_digest: str
    settings: FusionSettings
    retain: Retain
    members: dict[str, Member]  # by the concept's name
    totals: Totals  # by method
    delta: dict[str, Tensor]  # of the UNet, float32; empty if only neurons are used
    neurons: dict[str, Tensor]  # of the text encoder, float32; empty if none are used
    base_tensors: dict[str, Tensor]  # W0 by the names of both
    facts: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None

    def files(self) -> dict[str, bytes]:
        metadata = {"base": self.base, "base_digest": self.base_digest, "fused": sorted(self.members)}
        parts = {name: part for name, part in ((DELTA, self.delta), (NEURONS, self.neurons)) if part}
        flat = {f"{method}/{name}": total for method, own in self.totals.items() for name, total in own.items()}
        packed = {name: pack_delta(part, self.base_tensors, metadata) for name, part in parts.items()}
        return packed | {TOTALS: pack(flat, metadata)}

    @contextmanager
    def on(self, base: Base) -> Iterator[None]:
        """The base is the fused model inside this block, and itself, bit for bit, after it."""
        with applied(base.unet, self.delta), ExitStack() as stack:
            if self.neurons:
                stack.enter_context(grown(base.text_encoder, self.neurons))
            yield

    def to_json(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        return {
            "base": self.base,
            "base_digest": self.base_digest,
            "settings": self.settings.model_dump(mode="json"),
            "retain": self.retain.model_dump(mode="json"),
            "concepts": [member.model_dump(mode="json") for member in self.members.values()],
            "facts": self.facts,
            "verdict": self.verdict,
            "files": {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in files.items()},
        }


@contextmanager
def applied(unet: nn.Module, delta: Mapping[str, Tensor]) -> Iterator[None]:
    """The weights are W0 + dW inside this block, and W0 again, bit for bit, after it."""
    parameters = dict(unet.named_parameters())
    before = {name: parameters[name].detach().clone() for name in delta}
    try:
        with torch.no_grad():
            for name, tensor in delta.items():
                parameters[name].copy_(parameters[name].float() + tensor.to(parameters[name].device))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                parameters[name].copy_(tensor)


def is_fused(folder: str | Path) -> bool:
    return (Path(folder) / FUSED).is_file()


def read_fused(folder: Path) -> tuple[dict[str, Any], Totals]:
    """fused.json and the totals. Raises ArtifactError if the totals are not those that fused.json names, or too old."""
    content = json.loads((folder / FUSED).read_text())
    data = (folder / TOTALS).read_bytes()
    if sha256(data) != content["files"][TOTALS]["sha256"]:
        raise ArtifactError(f"{folder / TOTALS} is damaged: its sha256 is not the one in {FUSED}")
    totals: Totals = {}
    for key, total in unpack(data, str(folder / TOTALS))[0].items():
        method, _, name = key.partition("/")
        if method not in get_args(FusionMethod):
            raise ArtifactError(f"{folder / TOTALS} is of an earlier version, which had {key!r}; fuse its runs again")
        totals.setdefault(method, {})[name] = total
    return content, totals


def write_fused(
    fusion: Fusion,
    folder: Path,
    save_pipeline: Callable[[Path], None] | None = None,
    repairs: Mapping[str, bytes] | None = None,
) -> None:
    """Write a new folder at once. FileExistsError if there is something already.

    save_pipeline: writes a whole pipeline into the folder it is given; repairs: further files, by path.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; choose another folder for the fused model")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        files = fusion.files()
        for name, data in {**files, **(repairs or {})}.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            write_synced(temporary / name, data)
        if save_pipeline:
            save_pipeline(temporary / PIPELINE)
        write_synced(temporary / FUSED, to_bytes(fusion.to_json(files)))
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if folder.is_dir():
            folder.rmdir()
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def to_bytes(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
