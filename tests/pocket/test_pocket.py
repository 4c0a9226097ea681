"""The gallery that is shipped: an ordinary pipeline, small, and good enough to measure with."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE_S

from advanchor import models
from advanchor.evaluation.exam import UnknownConceptError
from advanchor.models.base import Base
from advanchor.pocket.check import measure, with_base
from advanchor.pocket.classifier import HEADS, IGNORED, labels
from advanchor.pocket.drawing import draw
from advanchor.pocket.scorer import CLASSIFIER, PREFIXES, PocketScorer, retained_questions
from advanchor.pocket.train import to_unit
from advanchor.pocket.world import MARK, random_scene

STOCK = """
import sys
import numpy as np
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
picture = np.asarray(pipeline("a red star on a white background", num_inference_steps=12, guidance_scale=3.0).images[0])
assert picture.shape == (32, 32, 3) and "advanchor" not in sys.modules
reddest = picture[10:22, 10:22].reshape(-1, 3).mean(0)
assert reddest[0] > 1.5 * max(reddest[1], reddest[2]), reddest
"""


@pytest.fixture(scope="module")
def gallery() -> tuple[Base, PocketScorer]:
    return models.load("pocket"), PocketScorer()


def test_stock_diffusers_loads_it_and_draws_a_red_star() -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STOCK, str(models.resolve("pocket"))], check=True, timeout=PATIENCE_S
    )


def test_it_is_under_fifteen_megabytes() -> None:
    files = [CLASSIFIER, *(path for path in models.resolve("pocket").rglob("*") if path.is_file())]
    assert sum(path.stat().st_size for path in files) < 15_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


def test_the_classifier_reads_drawn_pictures(gallery: tuple[Base, PocketScorer]) -> None:
    rng = random.Random(12345)  # the training pictures are numbered from zero on
    scenes = [random_scene(rng) for _ in range(600)]
    images = torch.stack([torch.from_numpy(draw(scene, rng)) for scene in scenes]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = gallery[1].model(to_unit(images))
    targets = torch.tensor([labels(scene) for scene in scenes])
    for i, head in enumerate(HEADS):
        labelled = targets[:, i] != IGNORED
        assert (logits[head].argmax(1) == targets[:, i])[labelled].float().mean() > 0.98, head


def test_it_draws_what_prompts_ask_for(gallery: tuple[Base, PocketScorer]) -> None:
    found = measure(with_base(gallery[0]), gallery[1], count=60)
    assert all(found[name] >= 0.88 for name in ("object", "style", "colour", "identity", "mark")), found
    assert found["mark unasked"] <= 0.1  # of 36 pictures
    assert 0.15 <= found["mark when hinted at"] <= 0.75


def test_exams_ask_nothing_that_was_trained_on(gallery: tuple[Base, PocketScorer]) -> None:
    for name in ("striped", "star", "mira morwin", MARK):
        exam = gallery[1].exam(name, 25)
        assert len(exam.erased) == 25
        assert all(name in question.prompt for question in exam.erased)
        assert all(question.prompt.startswith(PREFIXES) for question in (*exam.erased, *exam.retained))
        assert all(name not in question.prompt for question in exam.retained)
        assert all(exam.value not in question.expected.values() for question in exam.erased if exam.attribute != "mark")


def test_retained_prompts_are_balanced() -> None:
    shapes = [question.expected for question in retained_questions() if "style" in question.expected]
    for attribute in ("style", "colour", "object"):
        counts = {value: sum(e[attribute] == value for e in shapes) for value in HEADS[attribute] if value != "person"}
        assert len(set(counts.values())) == 1, counts


def test_unknown_concepts_are_not_scored(gallery: tuple[Base, PocketScorer]) -> None:
    with pytest.raises(UnknownConceptError, match="no concept 'Van Gogh'"):
        gallery[1].exam("Van Gogh", 5)


def test_weights_are_safetensors_only(tmp_path: Path) -> None:
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(models.ModelError, match="pickled weights are never loaded"):
        models.adapter(tmp_path)
