"""What `plan` says of the disk is what a run writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from advanchor.cli import app

CONCEPT = {"name": "star", "kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}
SHORT = {"steps": 1, "batch_size": 1, "num_latents": 1, "latent_steps": 1}


@pytest.mark.parametrize(
    ("method", "files"),
    [
        ({"name": "uce"}, {"delta", "statistics"}),
        ({"name": "fixed_anchor", "trained_weights": "cross_attention", **SHORT}, {"delta"}),
    ],
)
def test_plan_says_what_the_run_directory_will_hold(
    method: dict[str, Any], files: set[str], tiny_base: Path, tmp_path: Path
) -> None:
    run, batch = tmp_path / "run", tmp_path / "batch.yaml"
    content = {"model": str(tiny_base), "output": str(run), "evaluate": None, "method": method}
    batch.write_text(json.dumps(content | {"concepts": [CONCEPT, CONCEPT | {"name": "ring"}]}))
    told = json.loads(CliRunner().invoke(app, ["plan", str(batch), "--json"]).stdout)
    assert CliRunner().invoke(app, ["erase", str(batch), "--local"]).exit_code == 0
    written = [path for path in run.glob("tasks/*/*.safetensors") if not path.name.startswith("anchor")]
    assert {path.name.partition("-")[0] for path in written} == files
    assert told["disk"] == sum(tensor.nbytes for path in written for tensor in load_file(path).values())


def test_hours_disk_and_gpus_are_lines_of_the_plan(tiny_base: Path, tmp_path: Path) -> None:
    content = {"model": str(tiny_base), "output": str(tmp_path / "run"), "evaluate": None, "method": {"name": "uce"}}
    (tmp_path / "batch.yaml").write_text(json.dumps(content | {"concepts": [CONCEPT]}))
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "batch.yaml"), "--set", "resources.gpus_per_task=2"])
    assert done.exit_code == 0 and "core-hours" in done.stdout, done.output
    disk, gang = done.stdout.splitlines()[-2:]
    assert disk.startswith("the run directory will hold 0.00 GB, 0.1 MB a concept")
    assert gang.startswith("a gang of 2 GPUs needs ") and "GB on each GPU: denoiser" in gang
