"""Fusions of three quick erasures on the tiny model."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from advanchor.batch.file import parse_batch
from advanchor.batch.plan import plan
from advanchor.batch.retain import Retain
from advanchor.fusion.artifact import Fusion, is_fused
from advanchor.fusion.fuse import fuse, plan_fusion
from advanchor.models.base import Base
from advanchor.rundir.store import Store
from advanchor.runtime.local import run_locally

NAMES = ("circle", "star", "someone")
METHOD = {
    "steps": 2, "anchor_steps": 2, "batch_size": 2, "num_latents": 2, "latent_steps": 2, "lr": 1e-2, "anchor_lr": 0.1,
}  # fmt: skip
DISTILL = {"steps": 2, "batch_size": 4, "num_latents": 2, "retained_latents": 2, "latent_steps": 2, "inventions": 8}
RETAIN = Retain(prompts=("a blue shape", "a painting by a person"))


def erase(
    model: Path, folder: Path, names: tuple[str, ...] = NAMES, plain: dict[str, Any] | None = None, **method: Any
) -> str:
    """A run directory with finished erasures of these concepts. plain: a method in place of METHOD."""
    prompts = {"templates": ["a {}", "a red {}"], "neutral": ["a shape", "a red shape"]}
    concepts = [{"name": name, "kind": "identity" if name == "someone" else "object", **prompts} for name in names]
    chosen = METHOD | method if plain is None else plain
    batch = {"model": str(model), "output": str(folder), "method": chosen, "concepts": concepts}
    read = parse_batch(json.dumps(batch), folder / "batch.yaml")
    spec = read.spec
    status = run_locally(spec, plan(spec, read.concepts), Store(spec.output), lambda status: None)
    assert status.exit_code == 0
    return spec.output


def by(way: str, **changes: Any) -> dict[str, Any]:
    """Settings of a fusion by this way that are quick."""
    return {"method": way, "distill": DISTILL | changes}


def made(run: Path | str, base: Base, *sources: str, **options: Any) -> Fusion:
    """A fusion by `method`, by default closed_form, or as the first source was fused."""
    changes = {} if is_fused(run) else by(options.pop("method", "closed_form"))
    return fuse(plan_fusion([str(run), *sources], changes, RETAIN, **options), base)


def close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-6) -> bool:
    if {name: tensor.shape for name, tensor in a.items()} != {name: tensor.shape for name, tensor in b.items()}:
        return False
    scale = max(float(tensor.abs().max()) for tensor in b.values())
    return all(float((a[k] - b[k]).abs().max()) <= tolerance * scale for k in b)
