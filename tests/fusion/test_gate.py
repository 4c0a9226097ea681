"""The acceptance gate: what passes, what does not, and what counts."""

from dataclasses import replace

import pytest
import torch

from advanchor import models
from advanchor.artifacts import applied
from advanchor.batch.retain import Retain
from advanchor.concepts import Concept
from advanchor.evaluation.exam import Exam, Question
from advanchor.fusion.artifact import Fusion
from advanchor.fusion.edits import base_tensors
from advanchor.fusion.gate import Bars, Examination, Gate, failing, retained_questions, retained_rows, shortfall
from advanchor.fusion.member import Member
from advanchor.fusion.ways import FusionSettings
from advanchor.models.base import Base
from advanchor.pocket.scorer import PocketScorer

QUICK = Examination(num_prompts=3, images_per_prompt=2, steps=5)


@pytest.fixture(scope="module")
def gallery() -> Base:
    return models.load("pocket")


class Brief(PocketScorer):
    """Asks a quarter of the questions about what is retained."""

    def exam(self, concept: str, num_prompts: int) -> Exam:
        exam = super().exam(concept, num_prompts)
        return replace(exam, retained=exam.retained[::4])


@pytest.fixture(scope="module")
def gate(gallery: Base) -> Gate:
    return Gate(gallery, Brief(), QUICK, Bars())


def fusion(base: Base, change: float, *names: str) -> Fusion:
    """A fusion that moves every key and value by `change` times itself: -1 leaves none."""
    weights = base_tensors(base, None)
    facts = {
        "task": "t",
        "method": {},
        "base": "pocket",
        "base_digest": base.digest,
        "run": "",
        "path": "",
        "sha256": "",
    }
    members = {
        name: Member(
            concept=Concept(name=name, kind="object", templates=("a {}",), neutral=("a shape",)), ua=0.5, **facts
        )
        for name in names
    }
    delta = {name: change * weight for name, weight in weights.items()}
    return Fusion("pocket", base.digest, FusionSettings(), Retain(), members, {}, delta, {}, weights)


@pytest.mark.slow
def test_an_untouched_model_has_lost_nothing(gallery: Base, gate: Gate) -> None:
    verdict = gate.verdict(fusion(gallery, 0.0, "star", "Van Gogh"))
    star, unknown = verdict["concepts"]
    assert star["ua"] <= 0.2 and star["ua_alone"] == 0.5 and star["passed"] is False
    assert unknown["ua"] is None and unknown["passed"] is None
    assert all(row["passed"] and row["fused"] == row["base"] for row in verdict["retained"])
    assert verdict["degradation"] == 0 and verdict["passed"] is False
    assert failing(verdict) == ["star"]


@pytest.mark.slow
def test_a_ruined_model_has_lost_the_concept_and_all_else(gallery: Base, gate: Gate) -> None:
    before = {name: tensor.clone() for name, tensor in gallery.backbone.named_parameters()}
    verdict = gate.verdict(fusion(gallery, -1.0, "star"))
    assert verdict["concepts"][0]["ua"] >= 0.5
    whole = {row["attribute"]: row for row in verdict["retained"] if row["value"] is None}
    assert whole.keys() == {"style", "colour", "object", "identity"}
    assert not whole["identity"]["passed"] and whole["identity"]["base"] > 0.8 > 0.3 > whole["identity"]["fused"]
    assert verdict["degradation"] > 0.3 and not verdict["passed"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in gallery.backbone.named_parameters())


def test_a_block_that_fails_leaves_the_weights_as_they_were(base: Base) -> None:
    name, weight = next(iter(base_tensors(base, None).items()))
    before = weight.clone()
    with pytest.raises(RuntimeError), applied(base.backbone, {name: torch.ones_like(weight)}):
        assert torch.equal(dict(base.backbone.named_parameters())[name], before + 1)
        raise RuntimeError
    assert torch.equal(dict(base.backbone.named_parameters())[name], before)


def test_retained_questions_name_nothing_that_is_erased_and_come_once() -> None:
    star, ring = Question("a star", {"object": "star"}), Question("a ring", {"object": "ring"})
    red, blue = Question("a red ring", {"colour": "red", "object": "ring"}), Question("blue", {"colour": "blue"})
    first = Exam("object", "star", (), (ring, red, blue))
    second = Exam("colour", "red", (), (star, ring, blue))
    assert retained_questions([first, second]) == [ring, blue]


def test_rows_of_what_is_retained_by_hand() -> None:
    """Of two stars and two rings the base knows 2 and 1, the fused model 1 and 1: 3/4 before, 2/4 after."""
    questions = [Question("", {"object": value}) for value in ("star", "star", "ring", "ring")]
    before = [{"object": "star"}, {"object": "star"}, {"object": "ring"}, {"object": "cross"}]
    after = [{"object": "star"}, {"object": "cross"}, {"object": "ring"}, {"object": "cross"}]
    whole, star = retained_rows(questions, before, after, Bars(retained=0.7))
    assert whole == {"attribute": "object", "value": None, "base": 0.75, "fused": 0.5, "num_images": 4, "passed": False}
    assert star["value"] == "star" and (star["base"], star["fused"]) == (1.0, 0.5)
    (whole,) = retained_rows(questions, before, after, Bars(retained=0.5))
    assert whole["passed"]  # .5 >= .5 * .75, and a star's .5 >= .5 * 1


def test_fewer_failures_come_before_smaller_ones() -> None:
    def verdict(*uas: float) -> dict:
        rows = [{"ua": ua, "passed": ua >= 0.9} for ua in uas]
        return {"bars": {"ua": 0.9}, "concepts": rows, "retained": [{"passed": True}]}

    assert shortfall(verdict(0.1, 0.9)) < shortfall(verdict(0.8, 0.8)) < shortfall(verdict(0.7, 0.8))
