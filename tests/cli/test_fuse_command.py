"""`advanchor fuse`: what it writes, what stock diffusers makes of it, and what it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import new_clip
from patience import PATIENCE_S
from PIL import Image
from typer.testing import CliRunner, Result

import advanchor
from advanchor.artifacts import from_bytes
from advanchor.cli import app
from advanchor.evaluation.grids import pictures_of
from advanchor.models.base import Base


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["fuse", *map(str, arguments)])


def test_the_command_writes_a_delta_that_stock_pipelines_take(run: Path, base: Base, tmp_path: Path) -> None:
    done = command(run, "-o", tmp_path / "fused", "--without", "someone", "--set", "ridge=0.01")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "fused" / "fused.json").read_text())
    assert [entry["concept"]["name"] for entry in content["concepts"]] == ["circle", "star"]
    assert content["settings"]["ridge"] == 0.01 and content["verdict"] is None
    assert content["settings"]["method_by_kind"] == {"object": "task_arithmetic"}
    assert "object (2): task_arithmetic, since a few deltas add up" in done.stderr
    expected, _ = from_bytes((tmp_path / "fused" / "delta.safetensors").read_bytes(), "it")
    before = {name: tensor.clone() for name, tensor in base.backbone.named_parameters()}
    advanchor.apply(base.pipeline, tmp_path / "fused")
    after = dict(base.backbone.named_parameters())
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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["closed_form", "neurons"])
def test_a_fused_pipeline_draws_the_same_in_stock_diffusers(run: Path, base: Base, tmp_path: Path, method: str) -> None:
    done = command(run, "-o", tmp_path / "fused", "--pipeline", "--method", method)
    assert done.exit_code == 0, done.output
    folder, picture = tmp_path / "fused" / "pipeline", tmp_path / "picture.npy"
    subprocess.run([sys.executable, "-W", "ignore", "-c", STOCK, folder, picture], check=True, timeout=PATIENCE_S)
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
    "an unknown setting": (["--set", "rigde=1"], "'rigde' is not one of distill, retain_weight, ridge, neighbours"),
    "an unknown way": (["--method", "closed_from"], "'closed_from' is not one of auto, closed_form, anchor_edit"),
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


@pytest.fixture(scope="module")
def scored(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with two erasures that CLIP has looked at."""
    tmp_path = tmp_path_factory.mktemp("scored")
    scorer = {
        "clip": str(new_clip(tiny_base / "tokenizer", tmp_path / "clip")),
        "others": {"object": ["circle", "star"]},
        "retained": ["a blue shape", "a red star", "a portrait of a person"],
    }
    prompts = {"templates": ["a {}", "a red {}"], "neutral": ["a shape", "a red shape"]}
    batch = {
        "model": str(tiny_base),
        "method": {"name": "uce"},
        "concepts": [{"name": name, "kind": "object", **prompts} for name in ("star", "circle")],
        "evaluate": {"num_prompts": 1, "images_per_prompt": 1, "num_retained": 2, "steps": 1, "scorer": scorer},
        "resources": {"device": "cpu"},
    }
    (tmp_path / "batch.yaml").write_text(json.dumps(batch))
    done = CliRunner().invoke(app, ["erase", str(tmp_path / "batch.yaml"), "--local", "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    return tmp_path / "run"


QUICK = ("--set", "evaluate.num_prompts=1", "--set", "evaluate.steps=1", "--set", "evaluate.images_per_prompt=1")


def test_a_base_without_a_profile_is_examined_by_what_scored_its_runs(scored: Path, tmp_path: Path) -> None:
    """A retained question about another concept that is erased as well is not asked."""
    done = command(scored, "-o", tmp_path / "fused", *QUICK)
    assert done.exit_code in (0, 1), done.output
    content = json.loads((tmp_path / "fused" / "fused.json").read_text())
    choice, verdict = "object (2): task_arithmetic, since a few deltas add up", content["verdict"]
    assert content["facts"]["choices"] == {"object": choice}
    assert choice in (tmp_path / "fused" / "report.html").read_text()
    assert [row["name"] for row in verdict["concepts"]] == ["star", "circle"]
    assert all(row["ua"] is not None for row in verdict["concepts"])
    assert [row["num_images"] for row in verdict["retained"] if row["value"] is None] == [2]


def rows_of(page: Path, rows: int, columns: int) -> np.ndarray:
    """(rows, columns, height, width, 3) of a page of pictures."""
    return np.array([[np.array(p, int) for p in row] for row in pictures_of(Image.open(page), rows, columns, None)])


@pytest.mark.slow
def test_a_fused_model_is_shown_beside_what_its_run_has_kept(tmp_path: Path) -> None:
    """The only concept of a sum draws as it did alone, from the same prompts and noise, and not as the base does.

    A run keeps eight pictures, and every other one is shown.
    """
    batch = {
        "model": "pocket",
        "method": {"name": "uce"},
        "concepts": [{"name": "star", "kind": "object"}],
        "evaluate": {"num_prompts": 4, "images_per_prompt": 2, "num_retained": 2, "solver": "dpm", "steps": 4},
        "resources": {"device": "cpu"},
    }
    (tmp_path / "batch.yaml").write_text(json.dumps(batch))
    done = CliRunner().invoke(app, ["erase", str(tmp_path / "batch.yaml"), "--local", "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    done = command(tmp_path / "run", "-o", tmp_path / "fused", *QUICK, "--method", "task_arithmetic")
    assert done.exit_code in (0, 1), done.output
    (sheet,), (kept,) = (tmp_path / "fused" / "pictures").iterdir(), (tmp_path / "run").glob("tasks/*/erased-*.png")
    base, alone, fused = rows_of(sheet, 3, 4)
    assert np.array_equal([base, alone], rows_of(kept, 2, 8)[:, ::2])
    assert np.abs(fused - alone).mean() < 0.1 and np.abs(fused - base).mean() > 1
    page = (tmp_path / "fused" / "report.html").read_text()
    assert page.count('<img class="grid" src="data:image/png;base64,') == 1
    assert Image.open(tmp_path / "fused" / "overview.png").height < 200
    assert "UA fused" in done.stdout and f"report: {tmp_path / 'fused' / 'report.html'}" in done.stdout


def test_a_run_whose_scores_are_older_than_its_plan_shows_nothing(scored: Path, tmp_path: Path) -> None:
    """Nobody can tell any more which prompts its pictures were made of."""
    shutil.copytree(scored, tmp_path / "run")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    plan["spec"]["evaluate"]["seed"] = 5
    (tmp_path / "run" / "plan.json").write_text(json.dumps(plan))
    done = command(tmp_path / "run", "-o", tmp_path / "fused", "--only", "star", *QUICK)
    assert done.exit_code in (0, 1), done.output
    assert not (tmp_path / "fused" / "pictures").exists() and not (tmp_path / "fused" / "overview.png").exists()
