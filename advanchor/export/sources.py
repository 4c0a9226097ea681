"""What can be exported: every finished erasure of a run directory, one task's folder, or a fused model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from advanchor.artifacts import ArtifactError, from_bytes, sha256
from advanchor.batch.plan import slug
from advanchor.concepts import Concept
from advanchor.export.lora import ExportError
from advanchor.rundir.store import Store

FUSED = "fused.json"


@dataclass(frozen=True)
class Source:
    """One erasure, or many in one."""

    name: str  # of the files that are made of it: ASCII, safe in paths
    base: str
    base_digest: str
    concepts: tuple[Concept, ...]
    delta: dict[str, Tensor]  # dW by weight name, float32; empty if a fusion lives in the text encoder alone
    delta_sha256: str
    has_neurons: bool = False
    methods: tuple[Mapping[str, Any], ...] = ()  # settings, each once
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by concept's name: ua, ira, cra, ...
    made_of: Mapping[str, Any] = field(default_factory=dict)  # the base's checkpoint and LoRAs, with their sha256


def sources(place: str) -> Iterator[Source]:
    """Everything in a place, one after another. Raises ExportError, ArtifactError and StoreError."""
    folder = Path(place)
    if (folder / FUSED).is_file():
        yield fused(folder)
        return
    if (folder / "result.json").is_file():
        yield of_result(Store(str(folder.parent.parent)), json.loads((folder / "result.json").read_text()))
        return
    store = Store(place)
    results = store.results()
    if not results:
        raise ExportError(f"{place} is neither a run directory with finished tasks, a task's folder nor a fused model")
    for result in results:
        yield of_result(store, result)


def of_result(store: Store, result: Mapping[str, Any]) -> Source:
    """A finished task. Raises ArtifactError if its delta is not the one that its result names."""
    concept = Concept.model_validate(result["concept"])
    entry = result["files"]["delta"]
    path = f"tasks/{slug(concept.name)}-{result['task']}/{entry['name']}"
    data = store.read(path)
    if data is None or sha256(data) != entry["sha256"]:
        raise ArtifactError(f"{store.url}/{path} is {'missing' if data is None else 'damaged (sha256 differs)'}")
    return Source(
        name=slug(concept.name),
        base=result["base"],
        base_digest=result["base_digest"],
        concepts=(concept,),
        delta=from_bytes(data, path)[0],
        delta_sha256=entry["sha256"],
        methods=(result["method"],),
        scores={concept.name: result.get("scores") or {}},
        made_of=result.get("base_made_of") or {},
    )


def fused(folder: Path) -> Source:
    """A fused model. Raises ArtifactError if its delta is not the one that fused.json names."""
    content = json.loads((folder / FUSED).read_text())
    members, files = content["concepts"], content["files"]
    delta: dict[str, Tensor] = {}
    if named := files.get("delta.safetensors"):
        data = (folder / "delta.safetensors").read_bytes()
        if sha256(data) != named["sha256"]:
            raise ArtifactError(f"{folder / 'delta.safetensors'} is damaged: its sha256 is not the one in {FUSED}")
        delta = from_bytes(data, str(folder / "delta.safetensors"))[0]
    verdict = content.get("verdict") or {"concepts": []}
    return Source(
        name=slug(folder.resolve().name),
        base=content["base"],
        base_digest=content["base_digest"],
        concepts=tuple(Concept.model_validate(member["concept"]) for member in members),
        delta=delta,
        delta_sha256=(named or {}).get("sha256", ""),
        has_neurons="neurons.safetensors" in files,
        methods=each_once([member["method"] for member in members]),
        scores={row["name"]: {"ua": row["ua"]} for row in verdict["concepts"]},
        made_of=content.get("base_made_of") or {},
    )


def each_once(methods: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple({json.dumps(method, sort_keys=True): method for method in methods}.values())
