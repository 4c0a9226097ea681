"""`advanchor fuse`: what it writes, what stock diffusers makes of it, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import advanchor
from advanchor.artifacts import unpack
from advanchor.cli import app
from advanchor.models.base import Base


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["fuse", *map(str, arguments)])


def test_the_command_writes_a_delta_that_stock_pipelines_take(run: Path, base: Base, tmp_path: Path) -> None:
    done = command(run, "-o", tmp_path / "fused", "--without", "someone", "--set", "ridge=0.01")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "fused" / "fused.json").read_text())
    assert [entry["concept"]["name"] for entry in content["concepts"]] == ["circle", "star"]
    assert content["settings"]["ridge"] == 0.01 and content["verdict"] is None
    expected, _ = unpack((tmp_path / "fused" / "delta.safetensors").read_bytes(), "it")
    before = {name: tensor.clone() for name, tensor in base.unet.named_parameters()}
    advanchor.apply(base.pipeline, tmp_path / "fused")
    after = dict(base.unet.named_parameters())
    assert all(torch.equal(after[name], before[name] + dw) and dw.any() for name, dw in expected.items())
    assert "2 concepts" in (tmp_path / "fused" / "report.html").read_text()


STOCK = """
import sys, numpy as np, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
torch.set_num_threads(1)
noise = torch.Generator().manual_seed(0)
images = pipeline("a star", num_inference_steps=3, generator=noise, output_type="np").images
assert "advanchor" not in sys.modules
np.save(sys.argv[2], images)
"""


@pytest.mark.parametrize("method", ["closed_form", "neurons"])
def test_a_fused_pipeline_draws_the_same_in_stock_diffusers(run: Path, base: Base, tmp_path: Path, method: str) -> None:
    done = command(run, "-o", tmp_path / "fused", "--pipeline", "--method", method)
    assert done.exit_code == 0, done.output
    folder, picture = tmp_path / "fused" / "pipeline", tmp_path / "picture.npy"
    subprocess.run([sys.executable, "-W", "ignore", "-c", STOCK, folder, picture], check=True, timeout=120)
    base.pipeline.set_progress_bar_config(disable=True)

    def ours() -> np.ndarray:
        noise = torch.Generator().manual_seed(0)
        return base.pipeline("a star", num_inference_steps=3, generator=noise, output_type="np").images

    untouched = ours()
    advanchor.apply(base.pipeline, tmp_path / "fused")
    assert np.array_equal(np.load(picture), ours()) and not np.array_equal(ours(), untouched)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a name that is not there": (["--without", "strar"], "--without 'strar': not one of the 3 finished concepts"),
    "nothing left": (["--without", "star", "--without", "circle", "--without", "someone"], "no concept is left"),
    "an unknown setting": (["--set", "rigde=1"], "'rigde' is not one of method, method_by_kind, retain_weight, ridge"),
    "a bad value": (["--set", "ridge=-1"], "--set ridge: -1:"),
    "a bad bar": (["--set", "bars.ua=2"], "--set bars.ua: 2:"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistakes_are_named_before_anything_is_written(run: Path, tmp_path: Path, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    done = command(run, "-o", tmp_path / "fused", *arguments)
    assert done.exit_code == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = command(run, "-o", tmp_path)
    assert done.exit_code == 2 and "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_retained_prompt_that_is_erased_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "retain.yaml").write_text("prompts: [a blue shape, a Red Star]\n")
    done = command(run, "-o", tmp_path / "fused", "--retain", tmp_path / "retain.yaml")
    assert done.exit_code == 2 and "retained prompt 'a Red Star' names 'star', which is erased" in done.stderr


def test_mistakes_in_retain_yaml_have_their_place(run: Path, tmp_path: Path) -> None:
    (tmp_path / "retain.yaml").write_text("presets: [generall]\ncuont: 3\n")
    done = command(run, "-o", tmp_path / "fused", "--retain", tmp_path / "retain.yaml")
    assert done.exit_code == 2 and "'generall' is not one of gallery/captions, general" in done.stderr
    assert "retain.yaml:2:1: cuont: 'cuont' is not one of prompts, presets, count, seed, exclude" in done.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = command(tmp_path, "-o", tmp_path / "fused")
    assert done.exit_code == 2 and "neither a run directory with finished tasks nor a fused model" in done.stderr
