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
from typing import Any

from torch import Tensor

from advanchor.artifacts import ArtifactError, applied, delta_to_bytes, from_bytes, sha256, to_bytes
from advanchor.batch.retain import Retain
from advanchor.fusion.member import Member
from advanchor.fusion.neurons import grown, text_encoder
from advanchor.fusion.ways import FusionSettings
from advanchor.models.base import Base
from advanchor.rundir.storage import parse

FORMAT = 2  # of fused.json and the totals; others are refused
FUSED = "fused.json"
DELTA, NEURONS, TOTALS = "delta.safetensors", "neurons.safetensors", "totals.safetensors"
PIPELINE, REPAIRS, PICTURES = "pipeline", "repairs", "pictures"


Totals = dict[str, dict[str, Tensor]]  # method -> sums of contributions, float64


@dataclass
class Fusion:
    """One model out of many erasures."""

    base: str
    base_digest: str
    settings: FusionSettings
    retain: Retain
    members: dict[str, Member]  # by the concept's name
    totals: Totals  # by way of fusing
    delta: dict[str, Tensor] = field(default_factory=dict)  # of the denoiser, float32; empty if only neurons are used
    neurons: dict[str, Tensor] = field(default_factory=dict)  # of the text encoder, float32; empty if none are used
    base_tensors: dict[str, Tensor] = field(default_factory=dict)  # W0 by the names of both
    facts: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    made_of: dict[str, Any] = field(default_factory=dict)  # the base's checkpoint and LoRAs, with their sha256

    @property
    def provenance(self) -> dict[str, Any]:
        own = {"base": self.base, "base_digest": self.base_digest}
        return own | ({"base_made_of": self.made_of} if self.made_of else {})

    def files(self) -> dict[str, bytes]:
        metadata = {**self.provenance, "fused": sorted(self.members)}
        parts = {name: part for name, part in ((DELTA, self.delta), (NEURONS, self.neurons)) if part}
        flat = {f"{method}/{name}": total for method, own in self.totals.items() for name, total in own.items()}
        packed = {name: delta_to_bytes(part, self.base_tensors, metadata) for name, part in parts.items()}
        return packed | {TOTALS: to_bytes(flat, metadata)}

    @contextmanager
    def on(self, base: Base) -> Iterator[None]:
        """The base is the fused model inside this block, and itself, bit for bit, after it."""
        with applied(base.backbone, self.delta), ExitStack() as stack:
            if self.neurons:
                stack.enter_context(grown(text_encoder(base), self.neurons))
            yield

    def to_json(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **self.provenance,
            "settings": self.settings.model_dump(mode="json"),
            "retain": self.retain.model_dump(mode="json"),
            "concepts": [member.model_dump(mode="json") for member in self.members.values()],
            "facts": self.facts,
            "verdict": self.verdict,
            "files": {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in files.items()},
        }


def is_fused(folder: str | Path) -> bool:
    return (Path(folder) / FUSED).is_file()


def read_fused(folder: Path) -> tuple[dict[str, Any], Totals]:
    """fused.json and the totals. Raises ArtifactError if they are another version's, or the totals not those named."""
    try:
        content = parse((folder / FUSED).read_bytes())
        found = content.get("format", 1)
    except (AttributeError, ValueError) as error:
        raise ArtifactError(f"{folder / FUSED} is damaged: {str(error)[:200]}") from error
    if found != FORMAT:
        raise ArtifactError(
            f"{folder} was fused by another version of this program (format {found}, not {FORMAT}): "
            "it can be applied, but not added to or taken from; fuse its runs again"
        )
    try:
        FusionSettings(**content["settings"])
        Retain(**content["retain"])
        for entry in content["concepts"]:
            Member(**entry)
        expected = content["files"][TOTALS]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder / FUSED} is damaged: {str(error)[:200]}") from error
    data = (folder / TOTALS).read_bytes()
    if sha256(data) != expected:
        raise ArtifactError(f"{folder / TOTALS} is damaged: its sha256 is not the one in {FUSED}")
    totals: Totals = {}
    for key, total in from_bytes(data, str(folder / TOTALS))[0].items():
        method, _, name = key.partition("/")
        totals.setdefault(method, {})[name] = total
    return content, totals


def write_fused(
    fusion: Fusion,
    folder: Path,
    save_pipeline: Callable[[Path], None] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write a new folder at once. FileExistsError if there is something already.

    save_pipeline: writes a whole pipeline into the folder it is given; more: further files, by path.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; choose another folder for the fused model")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        files = fusion.files()
        for name, data in {**files, **(more or {})}.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            write_synced(temporary / name, data)
        if save_pipeline:
            save_pipeline(temporary / PIPELINE)
        write_synced(temporary / FUSED, json_bytes(fusion.to_json(files)))
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if folder.is_dir():
            folder.rmdir()
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def json_bytes(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
