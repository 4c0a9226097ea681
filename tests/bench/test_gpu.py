"""`advanchor bench gpu` at toy sizes on a CPU: every base, its steps, the page."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from typer.testing import CliRunner

from advanchor.bench import gpu, gpu_page
from advanchor.bench.gpu_case import Case, counted, measure
from advanchor.bench.published import PUBLISHED, backbone
from advanchor.cli import app


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_are_the_published_ones(name: str) -> None:
    with init_empty_weights():
        # SD3's places are a buffer that takes seconds to make
        places: dict[str, Any] = {"pos_embed_max_size": 8} if name.startswith("SD3") else {}
        found = sum(parameter.numel() for parameter in backbone(name, **places).parameters())
    assert found / 1e6 == pytest.approx(PUBLISHED[name].weights, abs=0.1)


@pytest.mark.parametrize("name", ["SDXL", "SD3.5-medium", "FLUX.2-klein-4B", "Qwen-Image", "Z-Image"])
def test_a_base_is_trained_and_sampled_in_its_own_structure(name: str) -> None:
    found = measure(Case(name, toy=True))
    _, plain, checkpointed = found["steps"]
    assert all(step["seconds"] > 0 and step["flops"] > 0 for step in found["steps"])
    assert plain["concepts"] == checkpointed["concepts"] == (1 if name == "Z-Image" else 2)
    if name != "Z-Image":  # which cannot be counted
        assert checkpointed["counted_bytes"] < plain["counted_bytes"]
        assert checkpointed["flops"] > plain["flops"]  # it makes activations again


def test_a_pack_is_counted_as_plan_counts_it() -> None:
    one, two = (counted(Case("SD3.5-medium", toy=True), 8, n, checkpointed=False) for n in (1, 2))
    module = backbone("SD3.5-medium", toy=True)
    weights = sum(p.numel() for p in module.parameters()) + sum(b.numel() for b in module.buffers())
    readers = 384 * 32 + 80 * 32
    assert one and two and two - one > 24 * readers
    assert 2 * one - two == 2 * weights  # bf16; all else is by concept


def test_the_page_says_what_was_measured_and_what_was_not(tmp_path: Path) -> None:
    step = {"what": "training", "pixels": 512, "concepts": 4, "seconds": 0.5, "flops": 2e12, "peak_bytes": 3e9}
    large = {"what": "training, checkpointed", "pixels": 1024, "concepts": 0, "seconds": None, "flops": None}
    steps = [step | {"counted_bytes": 4e9}, large | {"peak_bytes": None, "counted_bytes": 99e9}]
    base = {"name": "SDXL", "weights": 2_570_000_000, "matmul_flops": 8e12, "steps": steps}
    found = gpu.Found("H100", "2.13", [base], {"FLUX.2-dev": "no time was left"}, seconds=90)
    page = gpu_page.page(found.to_json(), "advanchor bench gpu")
    assert "| SDXL (2.57 B) | training | 512 | 4 | 0.50 | 4.00 | 50.0 % | 3.00 | 4.00 |" in page
    assert "|  | training, checkpointed | 1024 | – | does not fit | – | – | – | 99.00 |" in page
    assert "- FLUX.2-dev: no time was left" in page and "not run: there is one card" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "gpu", "-o", str(tmp_path / "gpu")])
    assert done.exit_code == 2 and "--toy" in done.output and not (tmp_path / "gpu").exists()


@pytest.mark.slow
def test_the_command_leaves_a_page_and_its_figures(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "gpu", "--toy", "--base", "SDXL", "-o", str(tmp_path / "gpu")])
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert [base["name"] for base in figures["bases"]] == ["SDXL"] and not figures["failed"]
    assert "| SDXL (0.00 B) | sampling, two pictures | 64 |" in (tmp_path / "gpu" / "README.md").read_text()
