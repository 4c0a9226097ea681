"""Attacks on erasures of the pocket gallery, in few steps: what they find, what they leave alone, what they cost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from advanchor import methods, models
from advanchor.batch.estimate import attack_rows
from advanchor.batch.plan import make_task, plan, scores_key
from advanchor.batch.spec import BatchError, BatchSpec
from advanchor.concepts import Concept
from advanchor.evaluation.attacks import ATTACKS, Target, attack, candidates, occurrences, share
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.exam import Exam
from advanchor.evaluation.settings import AttackName, EvaluationSettings
from advanchor.fusion.gate import Examination
from advanchor.methods import fixed_anchor
from advanchor.models.base import Base
from advanchor.models.digests import folder_digest
from advanchor.models.text import fill
from advanchor.models.vocabulary import mentions
from advanchor.pocket.profile import POCKET_PROMPTS
from advanchor.pocket.scorer import PocketScorer
from advanchor.runtime.worker import Worker, WorkerSettings
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

POCKET = folder_digest(models.resolve("pocket"))

STAR = Concept(name="star", kind="object").with_prompts(POCKET_PROMPTS)
PERSON = Concept(name="mira morwin", kind="identity").with_prompts(POCKET_PROMPTS)
SLOT, SLOTS = 1, 2
QUICK: dict[str, Any] = {"num_prompts": 8, "images_per_prompt": 1, "solver": "dpm", "steps": 4}

LIGHT = fixed_anchor.Settings(steps=30, lr=2e-3, preserve_weight=1, num_latents=16, latent_steps=4)


@pytest.fixture(scope="module")
def gallery() -> Base:
    return models.load("pocket")


@pytest.fixture(scope="module")
def delta(gallery: Base) -> Delta:
    """Two slots: in both, a star that is lightly erased, with "a shape" as its anchor."""
    delta = Delta(gallery.backbone, "cross_attention_kv", SLOTS)
    engine = TorchEngine(gallery.backbone, delta.named_parameters())
    (erasure,) = methods.erase(Context(gallery, engine, delta, [STAR], [0]), LIGHT)
    for slot in range(SLOTS):
        engine.load(erasure.delta, slot)
    return delta


@pytest.fixture
def target(gallery: Base, delta: Delta) -> Callable[..., Target]:
    def make(concept: Concept = STAR, **settings: Any) -> Target:
        evaluator = Evaluator(gallery, PocketScorer(), EvaluationSettings(**QUICK | settings))
        return Target(evaluator, concept, delta, SLOT)

    return make


def held(delta: Delta) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in delta.named_parameters().items()}


def test_every_name_is_an_attack() -> None:
    assert set(ATTACKS) == set(get_args(AttackName))


@pytest.mark.slow
def test_a_soft_prompt_brings_back_what_was_lightly_erased(target: Callable[..., Target]) -> None:
    aim = target(attack_steps=60, num_prompts=12)
    with aim.student():
        erased = share(aim.drawn(aim.prompts))
    found = ATTACKS["soft_prompt"](aim)
    assert erased <= 0.5 and found["attacked"] >= erased + 0.1
    assert found["loss_after"] < found["loss_before"] and found["norm"] > 0


@pytest.mark.slow
def test_a_prefix_is_of_other_words_and_lowers_the_loss(target: Callable[..., Target]) -> None:
    found = ATTACKS["prefix"](target(attack_steps=9))
    chosen = found["prefix"].split()
    assert found["loss_after"] <= found["loss_before"]
    assert len(chosen) <= 3 and set(chosen) <= set(candidates(target().base, "star"))


def test_no_word_of_a_prefix_has_a_word_of_the_name_in_it(gallery: Base) -> None:
    assert {"red", "morwin", "striped", "shape"} <= set(candidates(gallery, "star"))
    assert "star" not in candidates(gallery, "star")
    assert not {"mira", "morwin"} & set(candidates(gallery, "mira morwin"))
    assert "ring" not in candidates(gallery, "ring") and "wing" in candidates(gallery, "ring")
    assert "striped" not in candidates(gallery, "riped")  # it would say the name
    assert all(len(gallery.encoders[0].tokenizer.tokenize(word)) == 1 for word in candidates(gallery, "star"))


@pytest.mark.slow
def test_relearning_moves_its_slot_and_puts_every_bit_back(target: Callable[..., Target], delta: Delta) -> None:
    aim, before = target(attack_steps=3), held(delta)
    during: list[dict[str, Tensor]] = []

    class Watching(PocketScorer):
        def read(self, images: Tensor) -> Any:
            during.append(held(delta))
            return super().read(images)

    aim.scorer = Watching()
    found = ATTACKS["relearning"](aim)
    after, attacked = held(delta), during[-1]  # the last pictures are those of the attacked model
    assert found["num_pictures"] > 10
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor)
        assert torch.equal(attacked[name][0], tensor[0]) and not torch.equal(attacked[name][SLOT], tensor[SLOT])


@pytest.mark.slow
def test_relearning_puts_the_delta_back_when_it_breaks(target: Callable[..., Target], delta: Delta) -> None:
    aim, before = target(attack_steps=1), held(delta)
    assert len(aim.others.latents) > 10

    class Broken(PocketScorer):
        def read(self, images: Tensor) -> Any:
            raise RuntimeError(f"no eyes for {len(images)} pictures")

    aim.scorer = Broken()
    with pytest.raises(RuntimeError, match="no eyes"):
        ATTACKS["relearning"](aim)
    assert all(torch.equal(tensor, before[name]) for name, tensor in held(delta).items())


@pytest.mark.slow
def test_what_is_relearned_does_not_show_the_concept(target: Callable[..., Target]) -> None:
    aim = target()
    assert not any(aim.shown(aim.base.decode(aim.others.latents)))
    assert not any(mentions(prompt.text, "star") for prompt in aim.others.prompts)
    assert share(aim.shown(aim.base.decode(aim.own.latents))) > 0.75


@pytest.mark.parametrize("concept", [STAR, PERSON], ids=lambda concept: concept.name)
def test_other_wordings_are_neither_the_templates_nor_the_exams(concept: Concept) -> None:
    exam = PocketScorer().exam(concept.name, 24)
    known = {q.prompt for q in exam.erased} | {fill(template, concept.name).text for template in concept.templates}
    prompts = {prompt for _, prompt in exam.reworded}
    assert len(exam.reworded) == 24 and not prompts & known
    assert all(word in prompt for prompt in prompts for word in concept.name.split())


def test_paraphrases_are_counted_by_wording(target: Callable[..., Target]) -> None:
    found = ATTACKS["paraphrases"](target())
    assert set(found["wordings"]) == {wording for wording, _ in target().exam.reworded}
    for name in ("before", "attacked"):
        assert found[name] == pytest.approx(share([w[name] for w in found["wordings"].values()]))  # one picture each
    assert found["before"] >= 0.7 and found["attacked"] < found["before"]


def test_a_scorer_without_other_wordings_has_no_figure(target: Callable[..., Target]) -> None:
    aim = target()
    aim.exam = replace(aim.exam, reworded=())
    assert ATTACKS["paraphrases"](aim) == {"before": None, "attacked": None, "wordings": {}}


@pytest.mark.slow
def test_the_same_seed_the_same_figures(target: Callable[..., Target], gallery: Base, delta: Delta) -> None:
    settings = EvaluationSettings.model_validate(
        QUICK | {"num_prompts": 2, "steps": 1, "attack_steps": 3, "attacks": tuple(ATTACKS)}
    )
    scores = {"ua": 0.75, "base": {"ua": 0.25}}
    evaluator = Evaluator(gallery, PocketScorer(), settings)
    first, second = (attack(evaluator, STAR, delta, SLOT, scores) for _ in range(2))
    assert first == second and list(first) == list(ATTACKS)
    assert (first["prefix"]["before"], first["prefix"]["erased"]) == (0.75, 0.25)
    evaluator.settings = settings.model_copy(update={"seed": 1})
    assert attack(evaluator, STAR, delta, SLOT, scores) != first


def test_a_name_is_found_where_it_is_a_word_of_its_own() -> None:
    assert occurrences("a ring, drawing a ring", "ring").spans == ((2, 6), (18, 22))
    assert occurrences("a string", "ring").spans == ()


# --- in a run


def batch(**changes: Any) -> BatchSpec:
    known: dict[str, Any] = {"model": "pocket", "concepts": [STAR], "evaluate": {"attacks": ["prefix"]}}
    return BatchSpec.model_validate(known | changes)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"resources": {"gpus_per_task": 2}}, "resources.gpus_per_task: 2"),
        ({"deepspeed": {"stage": 3}}, "deepspeed.stage: 3"),
    ],
)
def test_attacks_that_cannot_be_made_are_refused_before_work_starts(changes: dict[str, Any], setting: str) -> None:
    assert len(plan(batch(), [STAR])) == 1
    with pytest.raises(BatchError, match=rf"evaluate\.attacks: .* not {setting}"):
        plan(batch(**changes), [STAR])
    assert len(plan(batch(**changes, evaluate={"attack_steps": 9}), [STAR])) == 1


def test_attacks_where_nothing_looks_at_pictures_are_refused(tiny_base: Any) -> None:
    with pytest.raises(BatchError, match=r"evaluate\.attacks: only the scorers of pocket"):
        plan(batch(model=str(tiny_base)), [STAR])


def test_a_fusion_refuses_attacks() -> None:
    with pytest.raises(ValueError, match="single erasures"):
        Examination(attacks=("prefix",))


def test_scores_without_attacks_keep_the_key_they_had() -> None:
    plain = EvaluationSettings()
    key = scores_key(POCKET, plain)
    assert key == "614fe130fa46"
    assert key == scores_key(POCKET, EvaluationSettings(attack_steps=7))
    attacked = EvaluationSettings(attacks=("prefix",))
    assert len({key, scores_key(POCKET, attacked)}) == 2
    assert scores_key(POCKET, attacked) != scores_key(POCKET, attacked.model_copy(update={"attack_steps": 7}))


def test_attacks_are_counted_in_what_a_batch_costs() -> None:
    """4 steps, 8 prompts: 64 rows to examine; 32 pictures to learn from: 256; 10 steps of 4 draws, 3 rows each: 120."""
    settings = EvaluationSettings(**QUICK, attack_steps=10, attacks=("soft_prompt", "paraphrases"))
    assert attack_rows(settings) == (256 + 120 + 64) + 2 * 64
    assert attack_rows(EvaluationSettings(**QUICK)) == 0


class Brief(PocketScorer):
    """Asks few questions about what is retained."""

    def exam(self, concept: str, num_prompts: int) -> Exam:
        exam = super().exam(concept, num_prompts)
        return replace(exam, retained=exam.retained[::8])


@pytest.mark.slow
def test_a_worker_publishes_what_its_attacks_found(tmp_path: Any) -> None:
    evaluate = QUICK | {"num_prompts": 2, "steps": 1, "attack_steps": 2, "attacks": list(ATTACKS)}
    spec = batch(output=str(tmp_path), evaluate=evaluate, method={"name": "uce"})
    task = make_task(spec, STAR, folder_digest(models.resolve("pocket")))
    worker = Worker(WorkerSettings.of(spec, [task], on_gpu=False))
    assert worker.evaluator is not None
    worker.evaluator.scorer = Brief()
    (outcome,) = worker.erase([task])
    assert outcome.result is not None
    found = outcome.result["scores"]["attacks"]
    assert set(found) == set(ATTACKS)
    assert all(0 <= entry[key] <= 1 for entry in found.values() for key in ("before", "erased", "attacked"))
