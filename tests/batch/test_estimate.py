"""What an exam asks of the UNet, against what evaluating it is seen to ask. Methods: tests/methods/test_forwards.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor, nn

from advanchor import models
from advanchor.batch.estimate import Estimate, estimate, evaluation_rows, exam_rows
from advanchor.batch.plan import Task, make_task
from advanchor.batch.spec import BatchSpec
from advanchor.concepts import Concept
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.models.base import Base
from advanchor.models.digests import folder_digest
from advanchor.pocket.scorer import PocketScorer
from advanchor.training.delta import Delta
from advanchor.training.representation import Price

ASKED: dict[str, Any] = {
    "num_prompts": 4, "images_per_prompt": 2, "num_retained": 5, "retained_images_per_prompt": 3, "steps": 2,
}  # fmt: skip
ONCE: dict[str, Any] = {"num_prompts": 1, "images_per_prompt": 1, "retained_images_per_prompt": 1, "steps": 1}
EXAMS = {
    "some of what is retained": ("circle", EvaluationSettings(**ASKED)),
    "all of it": ("circle", EvaluationSettings(**ONCE)),
    "at further scales": ("circle", EvaluationSettings(**ASKED, scales=(0.5, 2.0))),
    "with prompts that only hint": ("sigil", EvaluationSettings(**ASKED)),
}


@pytest.fixture(scope="module")
def gallery() -> Base:
    return models.load("pocket")


@contextmanager
def rows_of(unet: nn.Module) -> Iterator[list[int]]:
    seen: list[int] = []

    def look(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(len(arguments[0]))

    handle = unet.register_forward_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize("row", EXAMS)
def test_an_exam_asks_what_is_estimated(gallery: Base, row: str) -> None:
    concept, settings = EXAMS[row]
    scorer, delta = PocketScorer(), Delta(gallery.backbone, "cross_attention_kv")
    try:
        evaluator = Evaluator(gallery, scorer, settings)
        exam = scorer.exam(concept, settings.num_prompts).keeping(settings.num_retained)
        evaluator.by_base("retained", exam.retained, settings.retained_images_per_prompt)  # as after other concepts
        with rows_of(gallery.backbone) as seen:
            evaluator.evaluate(concept, lambda scale: delta.on(scale, 0))
    finally:
        delta.detach()
    assert sum(seen) == exam_rows(settings, scorer, concept)


def tasks(model: str, method: dict[str, Any], *names: str, **sections: Any) -> tuple[BatchSpec, list[Task]]:
    concepts = [Concept(name=name, kind="object", templates=("a {}",), neutral=("a shape",)) for name in names]
    spec = BatchSpec.model_validate({"model": model, "method": method, "concepts": concepts} | sections)
    return spec, [make_task(spec, concept, folder_digest(models.resolve(model))) for concept in concepts]


def test_what_is_retained_is_the_scorers_and_not_the_same_for_all() -> None:
    """The gallery's exam has 88 questions without the concept, fewer those that show it: every twelfth of 48 shapes."""
    spec, listed = tasks("pocket", {"name": "uce"}, "star", "a thing that it does not know", evaluate=ONCE)
    assert evaluation_rows(spec, listed) == [2 * (2 + 88 - 4), 0]


def test_a_base_without_a_scorer_is_not_examined(tiny_base: Any) -> None:
    spec, listed = tasks(str(tiny_base), {"name": "uce"}, "star")
    assert evaluation_rows(spec, listed) == [0]


COSTS = {  # per concept, forward-equivalents: 4 draws, each with so many predictions without and with a gradient
    "no_op": 0,
    "uce": 0,
    "fixed_anchor": 2 * 3 * 2 + 4 * (2 + 2 * 3),
    "guarded_anchor": 2 * 3 * 2 + 4 * (3 + 2 * 3),
    "adv_anchor": 2 * 3 * 2 + 4 * (2 + 5 * 3 + 1 + 2 * 3),
}


@pytest.mark.parametrize("name", COSTS)
def test_methods_are_told_apart(tiny_base: Any, name: str) -> None:
    trained = {"steps": 2, "batch_size": 2, "num_latents": 3, "latent_steps": 2}
    searched = {"anchor_steps": {"adv_anchor": 5, "guarded_anchor": 0}.get(name)}
    method = (
        {"name": name} | (trained if name != "uce" else {}) | ({} if searched["anchor_steps"] is None else searched)
    )
    spec, listed = tasks(str(tiny_base), method, "star")
    found = estimate(spec, listed)
    assert found.forwards_per_task == COSTS[name]
    assert found.sentence().startswith(f"about {COSTS[name]} forward-equivalents per concept")


def test_the_price_of_an_anchor_is_told_of_the_first_concept_of_every_kind_that_has_one(tiny_base: Any) -> None:
    names = ("star", "circle")
    assert estimate(*tasks(str(tiny_base), {"name": "adv_anchor"}, *names)).prices.keys() == {"star"}
    spec, listed = tasks(str(tiny_base), {"name": "adv_anchor", "trained_weights": "cross_attention"}, *names)
    assert not estimate(spec, listed).prices and not estimate(*tasks(str(tiny_base), {"name": "uce"}, *names)).prices


def test_a_dear_anchor_is_warned_of() -> None:
    found = Estimate(1, 1, 1, "cpu", 1, {"star": Price(10, 0.2), "cat": Price(130, 0.5)})
    (line,) = found.warnings()
    assert line.startswith(
        "'cat': an anchor is dear at the weights that read its prompts: a change of norm 130 reaches 50%"
    )
    assert found.to_json()["prices"]["cat"] == {"norm": 130, "unreached": 0.5}
