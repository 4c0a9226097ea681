"""Galleries that never saw a concept: what is left out, what the shipped one lends, and going on after a stop."""

import json
import random
from dataclasses import astuple
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from safetensors.torch import load_file
from typer.testing import CliRunner

from advanchor import models
from advanchor.cli import app
from advanchor.pocket import fit
from advanchor.pocket.mmdit import WITHOUT_T5
from advanchor.pocket.oracle import shows
from advanchor.pocket.scorer import CLASSIFIER
from advanchor.pocket.world import MARK, caption, people, random_scene, strangers

LIST = ["star", "striped", "mira morwin", MARK]


def train(folder: Path, *options: str, names: str = ", ".join(LIST)) -> SimpleNamespace:
    where = ["--work", str(folder / "work"), "-o", str(folder / "out")]
    return CliRunner().invoke(app, ["pocket", "train", "--quick", "--without", names, *where, *options])  # type: ignore[return-value]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    done = train(folder)
    assert done.exit_code == 0, done.output
    return folder


def test_neither_pictures_nor_captions_of_what_is_left_out_remain() -> None:
    rng = random.Random(0)
    drawn = [random_scene(rng) for _ in range(3000)]
    kept = [scene for scene in drawn if not shows(scene, LIST)]
    said = {word for scene in kept for word in caption(scene, rng).split()}
    assert not said & {"star", "striped", "morwin", MARK} and {"ring", "secret"} <= said
    assert not any(scene.mark for scene in kept)
    assert any(scene.mention for scene in kept)  # hints without the mark
    dropped = [scene for scene in drawn if shows(scene, LIST)]
    assert all(
        scene.mark or scene.object == "star" or scene.style == "striped" or scene.person == people()[0]
        for scene in dropped
    )


def test_an_oracle_has_the_gallerys_own_vae_tokenizer_and_classifier(oracle: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(oracle / "out" / "pipeline", safety_checker=None)
    shipped = StableDiffusionPipeline.from_pretrained(models.resolve("pocket"), safety_checker=None)
    for name, weight in shipped.vae.state_dict().items():
        assert torch.equal(weight, pipeline.vae.state_dict()[name]), name
    assert pipeline.tokenizer.get_vocab() == shipped.tokenizer.get_vocab()
    assert (oracle / "out" / "classifier.safetensors").read_bytes() == CLASSIFIER.read_bytes()
    assert not torch.equal(pipeline.unet.conv_in.weight, shipped.unet.conv_in.weight)
    assert json.loads((oracle / "out" / "without.json").read_text())["without"] == sorted(LIST)


@pytest.mark.slow
def test_an_sd3_is_taught_by_the_oracle(oracle: Path) -> None:
    done = train(oracle, "--architecture", "sd3")
    assert done.exit_code == 0, done.output
    StableDiffusion3Pipeline.from_pretrained(oracle / "out" / "sd3", **WITHOUT_T5)


def test_a_training_that_is_stopped_ends_with_the_same_weights(
    oracle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "EVERY", 2)
    save = fit.Checkpoint.save
    steps: list[int] = []

    def stopped(self: fit.Checkpoint, step: int, **states: object) -> None:
        save(self, step, **states)
        steps.append(step)
        if len(steps) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit.Checkpoint, "save", stopped)
    assert train(tmp_path).exit_code != 0
    assert train(tmp_path).exit_code == 0
    assert steps == [2, 4, 6, 2]  # of six steps and of three: the first two were not done again
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        whole, again = (load_file(f / "out" / "pipeline" / f"{part}.safetensors") for f in (oracle, tmp_path))
        assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_folder_of_another_list_is_refused(oracle: Path) -> None:
    done = train(oracle, names="star")
    assert done.exit_code == 2 and "belongs to another training" in " ".join(done.output.split())


def test_an_sd3_wants_a_teacher_that_never_saw_the_concepts(tmp_path: Path) -> None:
    done = train(tmp_path, "--architecture", "sd3")
    assert done.exit_code == 2 and "taught by a UNet that never saw" in " ".join(done.output.split())


@pytest.mark.parametrize("names", ["starr", "red", " , "])
def test_what_the_gallery_does_not_have_cannot_be_left_out(names: str, tmp_path: Path) -> None:
    done = train(tmp_path, names=names)
    assert done.exit_code == 2 and not (tmp_path / "work").exists()


def test_strangers_are_nobody_and_differ_from_everybody_in_three_parts() -> None:
    found = strangers(16)
    everybody = (*people(), *found)
    for one, other in product(found, everybody):
        if one is not other:
            assert sum(a != b for a, b in zip(astuple(one)[1:], astuple(other)[1:], strict=True)) >= 3
    words = {word for person in people() for word in person.name.split()}
    assert len({one.name for one in found}) == 16 and not words & {w for one in found for w in one.name.split()}
