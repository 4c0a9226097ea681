"""Tables of prompts drawn row by row, and folders of pictures measured: what benchmarks ask for."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification
from typer.testing import CliRunner, Result

import advanchor
from advanchor import models
from advanchor.cli import app
from advanchor.evaluation.classifier import ImageClassifier
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.exam import Question
from advanchor.evaluation.folders import harmonic, kernel_distance, loaded
from advanchor.evaluation.grids import to_pixels
from advanchor.evaluation.prompt_table import TableError, read_rows
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods import uce
from advanchor.models import ModelError
from advanchor.pocket.scorer import PocketScorer

PROMPTS = ("a red star", "a blue ring, striped", "a red star", "a green heart")


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/ and erased/ of four rows without seeds, the star erased."""
    folder = tmp_path_factory.mktemp("protocol")
    with (folder / "prompts.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("case", "Prompt", "category"), *((i, p, p.split()[2].strip(",")) for i, p in enumerate(PROMPTS))]
        )
    pipeline = models.load("pocket").pipeline
    star = advanchor.Concept(name="star", kind="object", templates=("a {}",), neutral=("a shape",))
    star_free = advanchor.erase(pipeline, star, uce.Settings()).save(folder / "star")
    done = again(folder, star_free)
    assert done.exit_code == 0 and "4 rows, 4 drawn: erased" in done.output, done.output
    return folder


def again(folder: Path, delta: Path | None = None, *options: object) -> Result:
    own = ("--prompts", folder / "prompts.csv", "--folder", folder / "out", "-e", delta or folder / "star")
    return command("generate", *own, "--steps", 4, "--solver", "dpm", *options)


def test_a_row_is_bit_for_bit_what_the_evaluator_draws(drawn: Path) -> None:
    settings = EvaluationSettings(images_per_prompt=1, steps=4, solver="dpm")
    evaluator = Evaluator(models.load("pocket"), PocketScorer(), settings)
    unique = [Question(prompt, {}) for prompt in PROMPTS[:2]]
    pictures = evaluator.pictures(unique, 1, remembered=False)
    for i, picture in enumerate(pictures):
        assert np.array_equal(np.asarray(Image.open(drawn / "out" / "base" / f"{i:06}.png")), to_pixels(picture))
    first, third = ((drawn / "out" / "base" / f"{i:06}.png").read_bytes() for i in (0, 2))
    assert first != third  # the same prompt a second time has another seed
    assert first != (drawn / "out" / "erased" / "000000.png").read_bytes()
    index = list(csv.DictReader((drawn / "out" / "rows.csv").open(newline="")))
    assert [(row["prompt"], row["category"]) for row in index][1] == (PROMPTS[1], "ring")


def test_it_goes_on_where_it_stopped_and_draws_the_same(drawn: Path) -> None:
    lost = drawn / "out" / "base" / "000001.png"
    whole, times = lost.read_bytes(), {p: p.stat().st_mtime_ns for p in (drawn / "out").rglob("*.png") if p != lost}
    lost.unlink()
    done = again(drawn)
    assert "4 rows, 1 drawn: base" in done.output and "4 rows, 0 drawn: erased" in done.output
    assert lost.read_bytes() == whole and times == {path: path.stat().st_mtime_ns for path in times}


def test_a_folder_of_other_settings_is_refused(drawn: Path) -> None:
    done = again(drawn, None, "--guidance", 5)
    assert done.exit_code == 2 and "holds pictures of another model, table or setting" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name\nstar\n", "has no column named prompt or prompts"),
        ("prompt\n", "has 0 rows"),
        ("prompt,seed\na,1\nb,-1\n", ":3: seed '-1' is not a whole number"),
        ("prompt,guidance\na,nan\n", ":2: guidance 'nan' is not a number"),
        (b"prompt\n\xff\n", "utf-8"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_told_with_its_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TableError) as caught:
        read_rows(path, 3.0)
    assert said in str(caught.value)
    done = command("generate", "--prompts", path, "--folder", tmp_path / "out")
    assert done.exit_code == 2 and not (tmp_path / "out").exists()


def test_benchmarks_own_titles_are_known(tmp_path: Path) -> None:
    """I2P's, whose rows have seeds and scales of their own; a seed may have passed through a spreadsheet."""
    (tmp_path / "i2p.csv").write_text("prompt,categories,sd_seed,sd_guidance_scale\na star,hate,42.0,7.5\n")
    (row,) = read_rows(tmp_path / "i2p.csv", 3.0)
    assert (row.prompt, row.category, row.seed, row.guidance) == ("a star", "hate", 42, 7.5)


def test_prompts_and_a_table_exclude_each_other() -> None:
    assert command("generate").exit_code == 2
    assert command("generate", "a star", "--prompts", "x.csv", "--folder", "out").exit_code == 2
    assert command("generate", "--prompts", "x.csv").exit_code == 2
    assert command("generate", "a star", "--gangs", 2).exit_code == 2
    assert command("generate", "--prompts", "x.csv", "--folder", "out", "--address", "host:1").exit_code == 2


# --- measuring


def test_h_o_is_a_harmonic_mean() -> None:
    """ACC_e .2, ACC_s .8: both terms are .8, and so is their mean. ACC_e .5, ACC_s 1: 2 / (2 + 1)."""
    assert harmonic(0.2, 0.8) == pytest.approx(0.8) and harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic(1.0, 1.0) == 0 == harmonic(0.0, 0.0)


def test_the_kernel_distance_by_hand() -> None:
    """d = 1, a = {0, 1}, b = {1, 1}: k(0, 1) = 1, k(1, 1) = 8; within a 1, within b 8, across (1 + 1 + 8 + 8) / 4."""
    assert kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [1.0]])) == pytest.approx(1 + 8 - 9)
    far = kernel_distance(torch.tensor([[0.0], [0.0]]), torch.tensor([[2.0], [2.0]]))
    assert far == pytest.approx(1 + 125 - 2)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        id2label={0: "star", 1: "ring", 2: "heart"}, label2id={"star": 0, "ring": 1, "heart": 2},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    prepared = {
        "size": {"height": 16, "width": 16},
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return folder


def test_a_classifier_sees_what_its_stock_forward_sees(classifier: Path) -> None:
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    judge, stock = ImageClassifier(classifier), ViTForImageClassification.from_pretrained(classifier).eval()
    with torch.no_grad():
        found = stock((picture[None] - 0.5) / 0.25, output_hidden_states=True)
    labels, features = judge.look([picture])
    names: Any = stock.config.id2label
    assert labels == [names[int(found.logits.argmax())]]
    torch.testing.assert_close(stock.classifier(features), found.logits)


def test_a_folder_without_labels_or_with_pickles_is_no_classifier(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no image classifier"):
        ImageClassifier(tmp_path)
    (tmp_path / "config.json").write_text((classifier / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        ImageClassifier(tmp_path)


def test_a_drawn_table_is_measured(drawn: Path, classifier: Path) -> None:
    words = (
        "measure",
        drawn / "out",
        "--classifier",
        classifier,
        "--erased",
        "star",
        "--against",
        drawn / "out" / "base",
    )
    done = command(*words, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    judge = ImageClassifier(classifier)
    seen = [judge.read([loaded(drawn / "out" / "erased" / f"{i:06}.png")])[0] for i in range(4)]
    expected = [prompt.split()[2].strip(",") for prompt in PROMPTS]
    right = [a == b for a, b in zip(seen, expected, strict=True)]
    assert found["acc_e"] == sum(right[i] for i in (0, 2)) / 2 and found["acc_s"] == sum(right[i] for i in (1, 3)) / 2
    assert found["h_o"] == harmonic(found["acc_e"], found["acc_s"])
    assert abs(found["base, against"]["frechet"]) < 0.1 * found["base, erased"]["frechet"]
    assert "recognised" in command(*words).stdout


def test_somebody_has_to_look(drawn: Path) -> None:
    assert "say --classifier FOLDER or --nudenet" in command("measure", drawn / "out").stderr
    done = command("measure", drawn / "out", "--nudenet", "--erased", "star")
    assert done.exit_code == 2 and "--erased and --against go with --classifier" in done.stderr


@pytest.mark.skipif(find_spec("nudenet") is not None, reason="the extra nudenet is there")
def test_without_the_extra_nudenet_it_says_how_to_get_it(drawn: Path) -> None:
    done = command("measure", drawn / "out", "--nudenet")
    assert done.exit_code == 2 and "pip install 'advanchor[nudenet]'" in done.stderr


@pytest.mark.skipif(find_spec("nudenet") is None, reason="needs the extra nudenet")
def test_nudenet_counts_what_a_folder_exposes(drawn: Path) -> None:
    done = command("measure", drawn / "out", "--nudenet", "--json")
    assert done.exit_code == 0, done.output
    assert {side: own["exposed"] for side, own in json.loads(done.stdout)["nudenet"].items()} == {
        "base": 0,
        "erased": 0,
    }


def test_what_cannot_be_measured_is_told(drawn: Path, classifier: Path, tmp_path: Path) -> None:
    for words in (
        (tmp_path, "--classifier", classifier),
        (drawn / "out", "--classifier", tmp_path),
        (drawn / "out", "--classifier", classifier, "--erased", "stra"),
        (drawn / "out", "--classifier", classifier, "--against", tmp_path),
    ):
        done = command("measure", *words)
        assert done.exit_code == 2 and "error: " in done.stderr and "Traceback" not in done.output
