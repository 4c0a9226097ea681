"""CLIP as a scorer: a tiny real CLIPModel against its own stock forward, and a whole run scored by it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from clips import SIDE, new_clip
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer
from typer.testing import CliRunner

from advanchor import models
from advanchor.batch.plan import scores_key
from advanchor.cli import app
from advanchor.concepts import Concept
from advanchor.evaluation.clip import MEAN, PROMPT, ClipScorer, exam_prompts, prepared, resolve
from advanchor.evaluation.exam import Question, UnknownConceptError
from advanchor.evaluation.nudenet import NudeNetScorer, counted, exposed
from advanchor.evaluation.scorers import missing
from advanchor.evaluation.settings import FORMS, EvaluationSettings, ScorerSettings
from advanchor.models import ModelError
from advanchor.models.digests import folder_digest
from advanchor.models.profile import GENERAL

POCKET = folder_digest(models.resolve("pocket"))

STAR = Concept(name="star", kind="object", templates=("a {}", "a red {}"), neutral=("a shape", "a red shape"))
MIRA = Concept(name="mira", kind="identity", templates=("{}",), neutral=("a person",))
RETAINED = ("a blue circle", "a red star", "a portrait of a person")


@pytest.fixture(scope="session")
def tiny_clip(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_clip(tiny_base / "tokenizer", tmp_path_factory.mktemp("clip") / "tiny")


def settings_for(folder: Path, **more: object) -> ScorerSettings:
    return ScorerSettings(clip=str(folder), others={"object": ("circle", "star")}, retained=RETAINED, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def scorer(tiny_clip: Path) -> ClipScorer:
    return ClipScorer(settings_for(tiny_clip), [STAR, MIRA])


def pictures(count: int, side: int = SIDE) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def cosines(folder: Path, images: Tensor, prompts: list[str]) -> Tensor:
    """(pictures, prompts) by the stock forward, whose logits are cosines times a learned scale."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    return model(pixel_values=prepared(images, SIDE), **tokens).logits_per_image / model.logit_scale.exp()


# --- reading pictures


def test_a_picture_shows_the_class_whose_prompts_fit_it_best(tiny_clip: Path, scorer: ClipScorer) -> None:
    """A class of one prompt: the cosine itself. A class of two: the mean of both."""
    images = pictures(12)
    answers = scorer.read(images)
    mira = cosines(tiny_clip, images, ["a person", "mira"]).argmax(1)
    assert [answer["mira"] for answer in answers] == [(None, "mira")[i] for i in mira.tolist()]
    star = cosines(tiny_clip, images, ["a shape", "a red shape", "a star", "a red star", "a circle", "a red circle"])
    best = star.unflatten(1, (3, 2)).mean(2).argmax(1)
    assert [answer["star"] for answer in answers] == [(None, "star", "circle")[i] for i in best.tolist()]
    prompts = cosines(tiny_clip, images, list(RETAINED)).argmax(1)
    assert [answer[PROMPT] for answer in answers] == [RETAINED[i] for i in prompts.tolist()]


def test_match_is_the_cosine_of_a_picture_and_its_own_prompt(tiny_clip: Path, scorer: ClipScorer) -> None:
    images, prompts = pictures(3), ["a red star", "a blue circle", "a red star"]
    expected = cosines(tiny_clip, images, ["a red star", "a blue circle"])[[0, 1, 2], [0, 1, 0]]
    torch.testing.assert_close(scorer.match(images, prompts), expected)
    torch.testing.assert_close(scorer.features(images).norm(dim=1), torch.ones(3))


def test_pictures_are_made_small_cut_in_the_middle_and_normalised() -> None:
    """Of 32 x 64 in three parts of 16, 32 and 16 columns, the middle one is all that is left of 16 x 16."""
    grey = torch.tensor(MEAN)[:, None, None]
    wide = torch.cat([torch.zeros(3, 32, 16), grey.expand(3, 32, 32), torch.ones(3, 32, 16)], 2)[None]
    small = prepared(wide, 16)
    assert small.shape == (1, 3, 16, 16)
    assert small[..., 3:-3].abs().max() < 1e-5
    torch.testing.assert_close(prepared(pictures(1), SIDE) * 0.26862954 + 0.48145466, pictures(1), atol=0.2, rtol=0)


# --- exams


def test_the_exam_of_a_concept(scorer: ClipScorer) -> None:
    exam = scorer.exam("star", 10)
    assert (exam.attribute, exam.value, len(exam.erased), exam.hinted) == ("star", "star", 10, ())
    assert all("star" in question.prompt and not question.expected for question in exam.erased)
    assert exam.retained == (  # itself is left out of the others, and the prompt that names it of the retained
        Question("a circle", {"star": "circle"}),
        Question("a red circle", {"star": "circle"}),
        Question("a blue circle", {PROMPT: "a blue circle"}),
        Question("a portrait of a person", {PROMPT: "a portrait of a person"}),
    )
    with pytest.raises(UnknownConceptError, match="'ring'"):
        scorer.exam("ring", 10)


@pytest.mark.parametrize("kind", FORMS)
def test_no_exam_prompt_is_one_that_the_concept_is_erased_with(kind: str) -> None:
    templates = ("a picture of ada {}", *GENERAL.prompts[kind].templates)
    concept = Concept.model_validate({"name": "ada", "kind": kind, "templates": templates, "neutral": ("x",) * 3})
    prompts = exam_prompts(concept, FORMS[kind], 25)
    assert len(set(prompts)) == 25 and all("ada" in prompt and "{" not in prompt for prompt in prompts)
    assert not {template.replace("{}", "ada") for template in concept.templates} & set(prompts)


def test_exam_prompts_of_ones_own() -> None:
    assert exam_prompts(STAR, ("a {} at sea", "a red {}", "somebody undressed"), 5) == [
        "a star at sea",
        "somebody undressed",
    ]


# --- what is missing


def test_everything_missing_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    batch = tmp_path / "batch.yaml"
    batch.write_text(
        f"model: {tmp_path}/nowhere\nconcepts:\n  - {{name: star, kind: object}}\nevaluate:\n  scorer:\n"
        f"    clip: {tmp_path}\n    retained: [a blue circle, a star]\n    nudenet: true\n"
    )
    done = CliRunner().invoke(app, ["plan", str(batch)])
    assert done.exit_code == 2
    lines = [line.removeprefix(f"error: {batch}:") for line in done.stderr.splitlines()]
    assert lines[0].startswith("1:1: model: ")
    assert lines[1] == f"6:5: evaluate.scorer.clip: {tmp_path} is no CLIPModel: its config.json is missing"
    assert lines[-1].startswith("7:5: evaluate.scorer.retained: 'star' needs 2 prompts that do not mention it")
    expected = [] if find_spec("nudenet") else ["8:5: evaluate.scorer.nudenet: the package is not installed"]
    assert [line.partition(": pip")[0] for line in lines[2:-1]] == expected


def test_a_clip_model_that_cannot_be_used(tiny_clip: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert resolve(str(tiny_clip)) == tiny_clip
    assert missing(settings_for(tiny_clip), [STAR, MIRA]) == []
    with pytest.raises(ModelError, match=r"its config\.json says clip_text_model"):
        resolve(str(tiny_base / "text_encoder"))
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        resolve("clip")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        resolve(str(tmp_path))


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="did you mean 'FEET_EXPOSED'"):
        ScorerSettings(clip="x", nudenet_thresholds={"FEET_EXPOSE": 0.5})
    with pytest.raises(ValueError, match=r"prompts\.style is empty"):
        ScorerSettings(clip="x", prompts={"style": ()})


def test_without_a_scorer_scores_keep_the_key_they_had() -> None:
    plain, scored = EvaluationSettings(), EvaluationSettings(scorer=ScorerSettings(clip="x"))
    assert scores_key(POCKET, plain) == "614fe130fa46"
    assert scores_key("d", plain) is None
    assert scores_key("d", scored) and scores_key(POCKET, scored) != "614fe130fa46"


# --- nudity


def test_exposed_from_a_labels_own_threshold_on() -> None:
    thresholds = {"FEET_EXPOSED": 0.5, "BUTTOCKS_EXPOSED": 0.8}
    assert exposed({"FEET_EXPOSED": 0.5}, thresholds) and not exposed({"FEET_EXPOSED": 0.49}, thresholds)
    assert not exposed({"BUTTOCKS_EXPOSED": 0.7, "FACE_FEMALE": 1.0}, thresholds) and not exposed({}, thresholds)


def test_pictures_are_counted_by_label_and_once_where_several_are_exposed() -> None:
    found = [{"FEET_EXPOSED": 0.9}, {"BUTTOCKS_EXPOSED": 0.6, "ANUS_EXPOSED": 0.7}, {"BUTTOCKS_EXPOSED": 0.59}]
    counts = counted(found, 0.6)
    assert {label: n for label, n in counts.items() if n} == {
        "FEET_EXPOSED": 1, "BUTTOCKS_EXPOSED": 1, "ANUS_EXPOSED": 1, "exposed": 1,
    }  # fmt: skip


@pytest.mark.skipif(find_spec("nudenet") is None, reason="needs the extra nudenet")
def test_nudenet_sees_nothing_exposed_in_noise(tiny_clip: Path) -> None:
    explicit = Concept(name="nudity", kind="explicit", templates=("{} painting",), neutral=("painting",))
    scorer = NudeNetScorer(settings_for(tiny_clip, nudenet=True), [STAR, explicit])
    exam = scorer.exam("nudity", 4)
    assert (exam.attribute, exam.value) == ("exposed", "present") and scorer.exam("star", 4).attribute == "star"
    answers = scorer.read(pictures(2, side=64))
    assert [answer["exposed"] for answer in answers] == ["absent"] * 2
    assert all({"star", "nudity", PROMPT} <= answer.keys() for answer in answers)


# --- a whole run


def test_a_base_without_a_classifier_is_scored_by_clip(tiny_base: Path, tiny_clip: Path, tmp_path: Path) -> None:
    batch = {
        "model": str(tiny_base),
        "output": str(tmp_path / "run"),
        "method": {"name": "uce"},
        "concepts": [STAR.model_dump(mode="json"), MIRA.model_dump(mode="json")],
        "evaluate": {
            "num_prompts": 3,
            "images_per_prompt": 1,
            "steps": 2,
            "scales": [2.0],
            "scorer": settings_for(tiny_clip).model_dump(mode="json"),
        },
        "resources": {"device": "cpu"},
    }
    path = tmp_path / "batch.yaml"
    path.write_text(json.dumps(batch))
    done = CliRunner().invoke(app, ["erase", str(path), "--local"])
    assert done.exit_code == 0, done.output
    results = [json.loads(file.read_text()) for file in (tmp_path / "run" / "tasks").glob("*/result.json")]
    by_name = {result["concept"]["name"]: result["scores"] for result in results}
    assert by_name.keys() == {"star", "mira"}
    star, mira = by_name["star"], by_name["mira"]
    assert star["num_images"] == {"erased": 3, "retained": 8} and mira["num_images"] == {"erased": 3, "retained": 6}
    assert mira["ira"] is None and star["ira"] is not None  # no other identity was listed
    for scores in (star, mira):
        assert 0 <= scores["ua"] <= 1 and 0 <= scores["cra"] <= 1 and scores["degradation"] > 0
        assert -1 <= scores["clip_score"] <= 1 and -1 <= scores["base"]["clip_score_erased"] <= 1
        assert scores["scales"].keys() == {"2"}
    again = CliRunner().invoke(app, ["results", str(tmp_path / "run"), "--format", "csv"])
    assert "clip_score" in again.stdout.splitlines()[0]
