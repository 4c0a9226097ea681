"""Large models' way of being erased from, in small: Ray, a gang of two ranks, all weights partitioned (ZeRO-3)."""

import json
from pathlib import Path
from typing import Any

import pytest
import short_runs as runs
import tiny
import torch
from safetensors.torch import load_file

from advanchor import api
from advanchor.concepts import Concept
from advanchor.methods.adv_anchor import Settings
from advanchor.runtime.rehearsal import RehearsalCluster

QUICK: dict[str, Any] = {
    "steps": 2, "anchor_steps": 2, "batch_size": 2, "num_latents": 2, "latent_steps": 2, "lr": 1e-3, "anchor_lr": 1e-2,
    "trained_weights": "readers", "perturb_pooled": "learn",
}  # fmt: skip
CLOSE_FOR_A_RANDOM_MODEL = 1e-2  # as in test_zero.py: rounding decides the signs of many of Adam's first steps


@pytest.mark.parametrize("name", ["sdxl", "flux_dev"])
def test_two_ranks_with_all_weights_partitioned_find_the_delta_of_one(
    cluster: RehearsalCluster, tmp_path: Path, name: str
) -> None:
    torch.manual_seed(0)
    pipeline = tiny.BUILD[name]()
    pipeline.save_pretrained(tmp_path / "base")
    batch = runs.write_batch(tmp_path, tmp_path / "base", ["cat"], gpus_per_task=2)
    content = json.loads(batch.read_text()) | {"method": QUICK, "deepspeed": {"stage": 3}}
    batch.write_text(json.dumps(content))
    assert runs.drive(batch).exit_code == 0
    (result,) = runs.store_of(batch).results()
    assert (result["provenance"]["ranks"], result["provenance"]["stage"]) == (2, 3)
    (file,) = (tmp_path / "run").glob("tasks/*/delta-*.safetensors")
    alone = api.erase(pipeline, Concept(**result["concept"]), Settings(**QUICK), seed=result["seed"]).erasure.delta
    together = load_file(file)
    assert together.keys() == alone.keys() and any("add_embedding" in key or "text_embedder" in key for key in alone)
    change = sum(float((together[key] - alone[key]).square().sum()) for key in alone) ** 0.5
    assert change < CLOSE_FOR_A_RANDOM_MODEL * sum(float(own.square().sum()) for own in alone.values()) ** 0.5
