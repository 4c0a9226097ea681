"""`advanchor art train --quick`: what it leaves, and that a training which is stopped ends with the same weights."""

import shutil
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file
from typer.testing import CliRunner

from advanchor.art.classifier import Classifier
from advanchor.art.train import QUICK, Sitting, train
from advanchor.art.world import POLICY_OF, STYLES, subjects
from advanchor.cli import app
from advanchor.pocket.mmdit import WITHOUT_T5
from advanchor.pocket.resumable import OutOfTimeError

QUICKLY = ("art", "train", "--quick")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("art")
    result = CliRunner().invoke(app, [*QUICKLY, "--work", str(folder / "work"), "-o", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.slow
def test_the_command_makes_a_pipeline_and_a_classifier(made: Path) -> None:
    pipeline: Any = StableDiffusion3Pipeline.from_pretrained(made / "sd3", **WITHOUT_T5)
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a noto ant on a sand background", num_inference_steps=2).images
    assert image.size == (64, 64)
    logits = Classifier.load(made / "classifier.safetensors")(pipeline.image_processor.preprocess(image))
    assert logits["object"].shape == (1, len(subjects())) and logits["style"].shape == (1, len(STYLES))
    files = [path for path in (*(made / "sd3").rglob("*"), made / "classifier.safetensors") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 40_000_000


@pytest.mark.slow
def test_a_training_that_is_stopped_ends_with_the_same_weights(made: Path, tmp_path: Path) -> None:
    """At every second step that it does; its sprites are those of the whole training."""
    shutil.copy(made / "work" / "quick" / "sprites.npy", tmp_path)
    sitting, stops = Sitting(tmp_path, 0, 1, cycle((False, True)).__next__), []
    while not (tmp_path / "made").exists() and len(stops) < 20:
        try:
            train(sitting, tmp_path / "made", None, QUICK)
        except OutOfTimeError as stop:
            stops.append(str(stop).partition(":")[0])
    assert stops == ["vae", "classifier", "mmdit", "mmdit"]
    for name in ("sd3/transformer/diffusion_pytorch_model.safetensors", "classifier.safetensors"):
        whole, stopped = load_file(made / name), load_file(tmp_path / "made" / name)
        assert all((whole[key] == stopped[key]).all() for key in whole)


def test_out_of_time_is_no_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*QUICKLY, "--work", str(tmp_path), "-o", str(tmp_path / "o"), "--minutes", "0"])
    assert result.exit_code == 0, result.output
    assert "stopped after 0 minutes, vae: 1 of 4 steps are done; the same command goes on" in result.output
    assert not (tmp_path / "o").exists()


def test_a_set_that_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(app, ["art", "train", "--work", str(tmp_path), "-o", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "npm" in result.output and "Traceback" not in result.output


@pytest.mark.slow
def test_every_word_of_the_world_is_one_token(made: Path) -> None:
    """So that a caption of 14 words fits."""
    pipeline: Any = StableDiffusion3Pipeline.from_pretrained(made / "sd3", **WITHOUT_T5)
    words = {word for subject in subjects() for word in subject.name.split()} | set(POLICY_OF)
    assert [word for word in words if len(pipeline.tokenizer(word).input_ids) != 3] == []
