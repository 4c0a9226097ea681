"""Exports are what other tools load: LoRA files by diffusers' own loader, merged pipelines by from_pretrained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from typer.testing import CliRunner

from advanchor.cli import app
from advanchor.export.lora import ExportError, decompose, kohya, peft
from advanchor.export.sources import sources

KEY = "a.to_k.weight"
GRAMS = {KEY: torch.diag(torch.tensor([100.0, 10.0, 1.0, 0.01]))}


def export(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def random_delta(rank: int, out: int = 6, width: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    left, right = torch.randn(out, rank, generator=generator), torch.randn(rank, width, generator=generator)
    return {KEY: left @ right}


def test_a_delta_of_low_rank_is_its_factors() -> None:
    delta = random_delta(2)
    lora = decompose(delta, GRAMS, 0.01)
    a, b = lora.factors[KEY]
    assert lora.rank == 4 and lora.error < 1e-6
    assert torch.allclose(b @ a, delta[KEY], atol=1e-5)


def test_what_its_prompts_do_not_ask_for_counts_less() -> None:
    """Two directions of equal size: the one that the prompts use a hundred times as much is kept."""
    dw = torch.zeros(8, 8)
    dw[torch.arange(8), torch.arange(8)] = 1.0
    gram = torch.diag(torch.tensor([1.0] * 4 + [1e-6] * 4)) * 100
    lora = decompose({"a.weight": dw}, {"a.weight": gram}, 0.2)
    a, b = lora.factors["a.weight"]
    kept = (b @ a).diagonal()
    assert lora.rank == 4 and kept[:4].allclose(torch.ones(4), atol=1e-3) and kept[4:].abs().max() < 1e-3


def test_a_delta_that_no_rank_carries_is_refused() -> None:
    with pytest.raises(ExportError, match="rank 4 leaves an error of"):
        decompose({"a.weight": torch.eye(32)}, {}, 0.01, largest=4)
    with pytest.raises(ExportError, match=r"'a\.bias'"):
        decompose({"a.weight": torch.eye(4), "a.bias": torch.ones(4)}, {}, 0.01)


def test_no_group_hides_behind_one_with_larger_inputs() -> None:
    """The small weight's error is its own: beside the other's sum of squares it would be nothing."""
    delta = {"large.weight": 1e3 * torch.ones(8, 8), "small.weight": torch.eye(8)}
    grams = {"large.weight": 1e3 * torch.eye(8), "small.weight": torch.eye(8)}
    assert decompose(delta, grams, 0.01).rank == 8


def test_names_are_those_that_the_tools_know() -> None:
    layers = decompose(random_delta(2), GRAMS, 0.01).layers
    assert set(peft(layers, "unet")) == {"unet.a.to_k.lora_A.weight", "unet.a.to_k.lora_B.weight"}
    found = kohya({"lora_unet_a_to_k": layers["a.to_k"]})
    assert set(found) == {f"lora_unet_a_to_k.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert float(found["lora_unet_a_to_k.alpha"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lora", "kohya"])
def test_a_run_s_erasures_load_in_diffusers(run: Path, tmp_path: Path, form: str) -> None:
    task = next(path for path in (run / "tasks").iterdir() if path.name.startswith("star"))
    code, output = export(task, "-o", tmp_path / "out", "--format", form)
    assert code == 0, output
    with safe_open(tmp_path / "out" / "star.safetensors", "pt") as file:
        facts = file.metadata()
    assert float(facts["advanchor.loaded_error"]) < 0.04 and json.loads(facts["advanchor.concepts"]) == ["star"]
    told = (tmp_path / "out" / "README.md").read_text()
    assert "| star | object |" in told and " % off the erasure, as diffusers loads it" in told


def test_a_merged_pipeline_is_the_base_with_the_delta(run: Path, tiny_base: Path, tmp_path: Path) -> None:
    code, output = export(run, "-o", tmp_path / "out", "--format", "diffusers")
    assert code == 0, output
    assert output.count("as diffusers loads it 0.00% off") == 3
    found = {source.name: source for source in sources(str(run))}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", *found}
    merged, base = (
        StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, low_cpu_mem_usage=False).unet.state_dict()
        for folder in (tmp_path / "out" / "circle", tiny_base)
    )
    for name, weight in base.items():
        assert torch.equal(merged[name], weight + found["circle"].delta.get(name, torch.zeros(())))


def test_a_checkpoint_is_loaded_again_and_says_how_far_it_is(run: Path, tmp_path: Path) -> None:
    task = next(path for path in (run / "tasks").iterdir() if path.name.startswith("star"))
    code, output = export(task, "-o", tmp_path / "out", "--format", "checkpoint")
    assert code == 0, output
    with safe_open(tmp_path / "out" / "star.safetensors", "pt") as file:
        assert float(file.metadata()["advanchor.loaded_error"]) < 1e-4
        assert "cond_stage_model.transformer.text_model.final_layer_norm.bias" in file.keys()  # noqa: SIM118


@pytest.mark.slow
def test_a_damaged_delta_is_not_exported(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    (delta,) = next((copy / "tasks").glob("star-*")).glob("delta-*")
    data = bytearray(delta.read_bytes())
    data[-1] ^= 1
    delta.write_bytes(data)
    code, output = export(delta.parent, "-o", tmp_path / "out")
    assert code == 2 and "damaged" in output and delta.name in output


def test_nothing_is_sent_unless_it_is_said(run: Path, tmp_path: Path) -> None:
    task = next((run / "tasks").glob("star-*"))
    code, output = export(task, "-o", tmp_path / "out", "--format", "diffusers", "--push", "somebody/model")
    assert code == 0 and "nothing was sent" in output and "README.md" in output
    assert export(run, "-o", tmp_path / "out", "--really")[0] == 2


def test_what_is_no_place_is_named(tmp_path: Path) -> None:
    code, output = export(tmp_path, "-o", tmp_path / "out")
    assert code == 2 and str(tmp_path) in output and "Traceback" not in output


@pytest.mark.slow
def test_export_needs_no_peft_to_be_imported() -> None:
    code = "import advanchor.export.write, sys; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
