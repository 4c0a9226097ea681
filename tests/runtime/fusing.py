"""Fusions of three quick erasures on the tiny model."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from advanchor.batch_file import parse_batch
from advanchor.fusion.artifact import Fusion
from advanchor.fusion.retain import Retain
from advanchor.models.base import Base
from advanchor.plan import plan
from advanchor.runtime.fuse import fuse, plan_fusion
from advanchor.runtime.local import run_locally
from advanchor.runtime.store import Store

NAMES = ("circle", "star", "someone")
METHOD = {
    "steps": 2, "anchor_steps": 2, "batch_size": 2, "num_latents": 2, "latent_steps": 2, "lr": 1e-2, "anchor_lr": 0.1,
}  # fmt: skip
RETAIN = Retain(prompts=("a blue shape", "a painting by a person"))


def erase(model: Path, folder: Path, names: tuple[str, ...] = NAMES, **method: Any) -> str:
    """A run directory with finished erasures of these concepts."""
    prompts = {"templates": ["a {}", "a red {}"], "neutral": ["a shape", "a red shape"]}
    concepts = [{"name": name, "kind": "identity" if name == "someone" else "object", **prompts} for name in names]
    batch = {"model": str(model), "output": str(folder), "method": METHOD | method, "concepts": concepts}
    spec, listed = parse_batch(json.dumps(batch), folder / "batch.yaml")
    status = run_locally(spec, plan(spec, listed), Store(spec.output), lambda status: None)
    assert status.exit_code == 0
    return spec.output


def made(run: Path | str, base: Base, *sources: str, **options: Any) -> Fusion:
    changes = {"method": options.pop("method")} if "method" in options else {}
    return fuse(plan_fusion([str(run), *sources], changes, RETAIN, **options), base)


def close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-6) -> bool:
    if {name: tensor.shape for name, tensor in a.items()} != {name: tensor.shape for name, tensor in b.items()}:
        return False
    scale = max(float(tensor.abs().max()) for tensor in b.values())
    return all(float((a[k] - b[k]).abs().max()) <= tolerance * scale for k in b)
