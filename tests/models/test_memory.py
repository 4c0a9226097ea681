"""What a task needs, counted on the meta device, against the models themselves."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_bases import CALLS

from advanchor import models
from advanchor.batch.file import parse_batch
from advanchor.batch.memory import GB, SPARE, activations, bytes_of, hollow_base, needed
from advanchor.batch.problems import problems
from advanchor.models.base import Base
from advanchor.runtime.packing import activation_bytes

UNSEEN = "z_image"  # which reads captions by a mask's values


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def saved(name: str) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("hollow") / name
        tiny.BUILD[name]().save_pretrained(folder)
        return folder

    return saved


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("sd3_without_t5", "flux2_dev")])
def test_weights_and_activations_are_those_of_the_model_itself(name: str, folders: Any) -> None:
    base, empty = models.load(str(folders(name))), hollow_base(folders(name), "fp32")
    assert {k: bytes_of(m) for k, m in base.modules().items()} == {k: bytes_of(m) for k, m in empty.modules().items()}
    plain, fewer = (activations(folders(name), "fp32", checkpointed) for checkpointed in (False, True))
    if name == UNSEEN:
        assert plain is None
        return
    assert plain is not None and fewer is not None
    assert plain == pytest.approx(activation_bytes(base), rel=0.01) and fewer < 0.9 * plain


def test_two_bytes_a_weight_in_bf16(folders: Any) -> None:
    half, whole = (bytes_of(hollow_base(folders("sdxl"), precision).backbone) for precision in ("bf16", "fp32"))
    assert 2 * half == whole


def batch(folder: Path, **sections: Any) -> Any:
    concepts = [{"name": "Van Gogh", "kind": "style", "templates": ["art by {}"], "neutral": ["art"]}]
    method = {"name": "adv_anchor", "batch_size": 4}
    text = json.dumps({"model": str(folder), "method": method, "concepts": concepts, "evaluate": None} | sections)
    return parse_batch(text, Path("batch.yaml"))


def test_a_task_s_need_is_the_sum_of_its_parts(folders: Any) -> None:
    folder = folders("sdxl")
    base: Base = models.load(str(folder))
    read = batch(folder, resources={"concepts_per_pack": 3})
    found = needed(read.spec, read.concepts)
    readers = [name for names in base.readers.values() for name in names]
    weights = sum(base.backbone.get_parameter(f"{name}.weight").numel() for name in readers)
    assert (found.rows, found.side) == (2 * 4 * 3, 64)
    assert found.training == 3 * 24 * weights
    assert found.encoders == sum(bytes_of(encoder.module) for encoder in base.encoders)
    kept = activations(folder, "fp32", False)
    assert kept is not None
    trained = found.training + SPARE * 24 * kept
    assert found.total == bytes_of(base.backbone) + bytes_of(base.vae) + max(found.encoders, trained)


def test_zero_3_parts_the_denoiser_and_the_deltas(folders: Any) -> None:
    read = batch(folders("sdxl"))
    alone = needed(read.spec, read.concepts)
    read = batch(folders("sdxl"), resources={"gpus_per_task": 2}, deepspeed={"stage": 3})
    both = needed(read.spec, read.concepts)
    assert (2 * both.backbone, 2 * both.training, 2 * both.rows) == (alone.backbone, alone.training, alone.rows)
    assert both.encoders == alone.encoders  # every rank has them whole


def test_what_cannot_fit_is_refused_with_what_would_help(folders: Any) -> None:
    def found(**resources: Any) -> list[str]:
        read = batch(folders("sdxl"), resources=resources)
        return read.located(problems(read.spec, read.concepts))

    need = 1e9 * needed(batch(folders("sdxl")).spec, batch(folders("sdxl")).concepts).total / GB
    assert found() == found(gpu_memory_gb=1.01 * need / GB) == []
    (problem,) = found(gpu_memory_gb=0.5 * need / GB, concepts_per_pack=2)
    for helps in ("precision: bf16", "gradient_checkpointing: true", "concepts_per_pack: 1", "gpus_per_task: 2"):
        assert helps in problem
    assert problem.startswith("batch.yaml:1:") and ": resources: a task needs " in problem and "\n" not in problem
    assert found(gpu_memory_gb=0.01 * need / GB, device="cpu") == []  # no GPU is asked for
    (shared,) = found(gpu_memory_gb=1.01 * need / GB, gpus_per_task=0.5)
    assert f"but has {0.505 * need / GB:.2f} GB" in shared
