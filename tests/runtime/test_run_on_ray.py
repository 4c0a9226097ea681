"""Runs through the command line on a local Ray that it starts itself: the demo in small, and Ctrl-C."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S, wait_until
from short_runs import command, start

GALLERY = """
model: pocket
output: runs/gallery
method: {perturb_tokens: concept_and_later, %s}
concepts:
  - {name: striped, kind: style}
  - {name: star, kind: object}
evaluate: {num_prompts: 12, images_per_prompt: 1, num_retained: 30, retained_images_per_prompt: 1, solver: dpm,
  steps: 6}
resources: {concepts_per_pack: 2, gangs: 1}
"""
GALLERY_METHOD = "steps: 40, anchor_steps: 3, lr: 2.0e-3, anchor_lr: 1.5e-2, batch_size: 4, num_latents: 16"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of two concepts, started where a stray yaml.py, torch/ and advanchor.py lie."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "batch.yaml").write_text(GALLERY % GALLERY_METHOD)
    (folder / "torch").mkdir()
    strays = [folder / name for name in ("yaml.py", "torch/__init__.py", "advanchor.py")]
    for stray in strays:
        stray.write_text("raise SystemExit('imported from the current folder')\n")
    environment = os.environ | {"HOME": str(folder), "PYTHONSAFEPATH": "1"}  # what the console script does by itself
    done = subprocess.run(
        [sys.executable, "-m", "advanchor.cli", "erase", "batch.yaml", "--json"],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for stray in strays:
        stray.unlink()
    return folder


def results(folder: Path, name: str = "gallery") -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"runs/{name}/tasks/*/result.json"))]


def test_concepts_are_gone_and_the_rest_is_not(gallery: Path) -> None:
    found = results(gallery)
    assert {result["concept"]["name"] for result in found} == {"striped", "star"}
    for result in found:
        scores = result["scores"]
        assert scores["base"]["ua"] <= 0.1, "the base must know the concept, or nothing is shown"
        assert scores["ua"] >= 0.8
        assert scores["ira"] >= scores["base"]["ira"] - 0.1
        assert scores["cra"] >= scores["base"]["cra"] - 0.1
        assert result["provenance"]["engine"] == "DeepSpeedEngine"


def test_a_second_run_does_nothing_again(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gallery)
    before = {path: path.stat().st_mtime_ns for path in gallery.glob("runs/gallery/tasks/*/*.safetensors")}
    assert len(before) == 6  # delta, anchor and statistics of two concepts
    assert "2 done" in command("erase", "batch.yaml", "--local")
    assert before == {path: path.stat().st_mtime_ns for path in gallery.glob("runs/gallery/tasks/*/*.safetensors")}


def test_a_changed_evaluation_does_not_train_again(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gallery)
    before = {path.name for path in gallery.glob("runs/gallery/tasks/*/delta-*")}
    command("erase", "batch.yaml", "--local", "--set", "evaluate.num_prompts=2", "--set", "evaluate.steps=2")
    assert before == {path.name for path in gallery.glob("runs/gallery/tasks/*/delta-*")}
    assert {result["scores"]["num_images"]["erased"] for result in results(gallery)} == {2}


def test_what_the_commands_show(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gallery)
    rows = list(csv.DictReader(io.StringIO(command("results", "runs/gallery", "--format", "csv"))))
    assert [row["name"] for row in rows] == ["striped", "star"]
    assert json.loads(command("status", "runs/gallery", "--json"))["state"] == "finished"
    assert "striped" in command("status", "runs/gallery")
    assert "2 of them done" in command("plan", "batch.yaml")
    assert "data:image/png" in (gallery / "runs/gallery/report/index.html").read_text()
    task = next(gallery.glob("runs/gallery/tasks/star-*"))
    command("generate", "a red star", "-e", str(task), "-o", "star.png", "--count", "2", "--steps", "4")
    assert (gallery / "star.png").read_bytes().startswith(b"\x89PNG")


def slow_batch(folder: Path, base: Path) -> None:
    """Two concepts on a tiny model, of so many steps that none is done before the interruption."""
    (folder / "slow.yaml").write_text(
        f"model: {base}\noutput: runs/slow\n"
        "method: {steps: 10000, anchor_steps: 2, num_latents: 4, latent_steps: 2}\n"
        "concepts:\n  - {name: cat, kind: object, templates: ['a {}'], neutral: ['a pet']}\n"
        "  - {name: dog, kind: object, templates: ['a {}'], neutral: ['a pet']}\n"
    )


def wait_for_training(folder: Path, process: subprocess.Popen) -> None:
    """Until a task is well into its student's steps."""
    status = folder / "runs/slow/status.json"

    def is_training() -> bool:
        assert process.poll() is None, process.communicate()
        return status.exists() and any(row["step"] > 5 for row in json.loads(status.read_text())["tasks"])

    wait_until(is_training, "a task to get going")


def test_ctrl_c_leaves_everything_resumable(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_batch(tmp_path, tiny_base)
    process = start(tmp_path, "erase", "slow.yaml")
    wait_for_training(tmp_path, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output + errors
    monkeypatch.chdir(tmp_path)
    command("status", "runs/slow", code=130)
    assert results(tmp_path, "slow") == []
    command("erase", "slow.yaml", "--local", "--set", "method.steps=20")
    assert {result["concept"]["name"] for result in results(tmp_path, "slow")} == {"cat", "dog"}


def test_bad_input_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: pocket\noutput: runs/bad\nconcepts: [{name: star, kind: objekt}]\n")
    process = start(tmp_path, "erase", "bad.yaml")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "bad.yaml:3:25: concepts.0.kind: 'objekt' is not one of" in errors
    assert not (tmp_path / "runs").exists()
