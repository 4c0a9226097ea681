"""What is not finite is not done: it ends with the step and the likely cause, at once and for good."""

import json
import math
from pathlib import Path

import pytest
import quick
import torch

import advanchor
from advanchor.batch.file import read_batch
from advanchor.batch.plan import make_tasks
from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.rundir.store import Store
from advanchor.runtime.local import run_locally
from advanchor.training.finite import NotFiniteError, check_finite, watched


def test_a_loss_is_looked_at_before_it_is_shown() -> None:
    seen: list[tuple] = []
    report = watched(lambda *told: seen.append(told))
    report("student", 1, 2, 0.5)
    for loss in (math.nan, math.inf, -math.inf):
        with pytest.raises(NotFiniteError, match="student step 2 of 2: the loss is"):
            report("student", 2, 2, loss)
    assert seen == [("student", 1, 2, 0.5)]


@pytest.mark.parametrize("name", ["esd", "fixed_anchor", "adv_anchor", "guarded_anchor"])
def test_a_learning_rate_that_is_too_high_is_named(base: Base, concept: Concept, name: str) -> None:
    settings = quick.SETTINGS[name].model_copy(update={"lr": 1e30, "steps": 4})
    with pytest.raises(NotFiniteError, match=r"student step [2-4] of 4: the loss is .*likely cause: method\.lr 1e\+30"):
        advanchor.erase(base.pipeline, concept, settings)


def test_an_anchor_that_ran_away_is_named(base: Base, concept: Concept) -> None:
    settings = quick.SETTINGS["adv_anchor"].model_copy(update={"anchor_lr": math.inf})
    with pytest.raises(NotFiniteError, match=r"likely cause: method\.anchor_lr inf or the precision"):
        advanchor.erase(base.pipeline, concept, settings)


def test_a_delta_that_is_not_finite_is_not_handed_on(base: Base, concept: Concept) -> None:
    erasure = advanchor.erase(base.pipeline, concept, quick.SETTINGS["fixed_anchor"]).erasure
    check_finite(erasure.delta)
    next(iter(erasure.delta.values())).view(-1)[3] = torch.nan
    with pytest.raises(NotFiniteError, match=r"attn2\.to_[kv]\.weight has values that are not finite"):
        check_finite(erasure.delta)


@pytest.mark.parametrize("pack", [1, 2])
def test_a_run_fails_such_a_task_at_once_and_finishes_the_others(tiny_base: Path, tmp_path: Path, pack: int) -> None:
    """One of two concepts asks for ten to the power of 30: it fails after one attempt of its own."""
    method = {"name": "fixed_anchor", **quick.QUICK, "steps": 3}
    prompts = {"templates": ["a {}"], "neutral": ["a shape"]}
    batch = {
        "model": str(tiny_base), "output": str(tmp_path / "run"), "method": method, "evaluate": None,
        "method_by_kind": {"style": {**method, "lr": 1e30}},
        "concepts": [{"name": name, "kind": kind, **prompts} for name, kind in
                     (("star", "object"), ("red", "style"), ("blue", "style"))],
        "resources": {"device": "cpu", "concepts_per_pack": pack},
    }  # fmt: skip
    path = tmp_path / "batch.yaml"
    path.write_text(json.dumps(batch))
    read = read_batch(path, (), None)
    spec = read.spec
    tasks, store = make_tasks(spec, read.concepts), Store(spec.output)
    status = run_locally(spec, tasks, store, lambda status: None)
    assert [row.status for row in status.tasks] == ["done", "failed", "failed"] and status.exit_code == 1
    for task, row in zip(tasks[1:], status.tasks[1:], strict=True):
        assert "likely cause: method.lr 1e+30" in row.reason
        assert store.result(task) is None and not store.find("tasks", task.folder, "*.safetensors")
        events = [record["event"] for record in store.attempts()[task.folder]]
        assert events == ["Refused"] if pack == 1 else ["Broke", "Refused"]
