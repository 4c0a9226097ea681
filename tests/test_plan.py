"""What a task is called: by what decides its numbers, in a folder that no name can break out of."""

import re
from pathlib import Path
from typing import Any

import pytest

from advanchor.batch_file import parse_batch
from advanchor.concepts import Concept
from advanchor.plan import Task, make_task, plan, scores_key, slug
from advanchor.spec import BatchError, BatchSpec

STAR: dict[str, Any] = {"name": "star", "kind": "object", "templates": ("a {}",), "neutral": ("a shape",)}


def batch(**changes: Any) -> BatchSpec:
    return BatchSpec.model_validate({"model": "pocket", "concepts": [STAR]} | changes)


def task(concept: dict[str, Any] | None = None, base_digest: str = "d", **changes: Any) -> Task:
    return make_task(batch(**changes), Concept(**STAR | (concept or {})), base_digest)


DECIDES: dict[str, dict[str, Any]] = {
    "the base": {"base_digest": "other"},
    "the name": {"concept": {"name": "Star"}},
    "a template": {"concept": {"templates": ("one {}",)}},
    "a neutral prompt": {"concept": {"neutral": ("an object",)}},
    "an attribute": {"concept": {"attributes": {"pointed": 1.0}}},
    "a similar concept": {"concept": {"similar": "cross"}},
    "an attribute's weight": {"concept": {"attributes": {"pointed": 0.5}}},
    "the method": {"method": {"name": "esd"}},
    "the loss": {"method": {"name": "adv_anchor", "loss": "adv1"}},
    "the learning rate": {"method": {"name": "adv_anchor", "lr": 2e-5}},
    "the trained weights": {"method": {"name": "adv_anchor", "trained_weights": "cross_attention"}},
    "settings of its kind": {"method_by_kind": {"object": {"steps": 9}}},
    "the precision": {"deepspeed": {"precision": "bf16"}},
    "the seed": {"seed": 1},
}
DECIDES_NOTHING: dict[str, dict[str, Any]] = {
    "the model's name for the same digest": {"model": "a/folder"},
    "the output": {"output": "elsewhere"},
    "resources": {
        "resources": {"gpus_per_task": 2, "gangs": 4, "cpus_per_rank": 3, "max_attempts": 1, "deadline_s": 9}
    },
    "how weights are partitioned": {"deepspeed": {"stage": 3, "offload": "cpu"}},
    "the evaluation": {"evaluate": {"steps": 3, "seed": 5}},
    "no evaluation": {"evaluate": None},
    "settings of another kind": {"method_by_kind": {"style": {"steps": 9}}},
    "the other concepts": {"concepts": [STAR, {"preset": "gallery/styles"}]},
}


@pytest.mark.parametrize("what", DECIDES)
def test_what_decides_numbers_changes_the_id(what: str) -> None:
    assert task(**DECIDES[what]).id != task().id


def test_no_two_of_them_give_the_same_id() -> None:
    assert len({task(**changes).id for changes in DECIDES.values()}) == len(DECIDES)


@pytest.mark.parametrize("what", DECIDES_NOTHING)
def test_what_decides_no_numbers_leaves_the_id(what: str) -> None:
    changed, plain = task(**DECIDES_NOTHING[what]), task()
    assert (changed.id, changed.seed, changed.folder) == (plain.id, plain.seed, plain.folder)


def test_the_seed_follows_the_id() -> None:
    assert task().seed == task().seed
    assert len({task(**changes).seed for changes in DECIDES.values()} | {task().seed}) == len(DECIDES) + 1


HOSTILE = {
    "AC/DC": "ac-dc",
    "../../etc/passwd": "etc-passwd",
    "/etc": "etc",
    "C:\\Windows": "c-windows",
    "-rf": "rf",
    "Dr. Seuss": "dr-seuss",
    "Édouard Manet": "edouard-manet",
    "\N{GRINNING FACE}": "concept",
    "..": "concept",
    "\u65e5\u672c": "concept",
    "<script>": "script",
    "a*b?[c]": "a-b-c",
    "x" * 500: "x" * 40,
    "-".join("x" * 250): "x-" * 19 + "x",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_make_harmless_folders(name: str) -> None:
    assert slug(name) == HOSTILE[name]
    made = task({"name": name})
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{12}", made.folder)
    assert made.concept.name == name


@pytest.mark.parametrize(
    "names", [("Star", "star", "STAR"), ("AC/DC", "AC DC", "ac-dc"), ("\N{GRINNING FACE}", "\N{SNOWMAN}", "..")]
)
def test_names_that_look_alike_have_folders_of_their_own(names: tuple[str, ...]) -> None:
    folders = [task({"name": name}).folder for name in names]
    assert len({folder.lower() for folder in folders}) == len(names)
    assert len({folder.rpartition("-")[0] for folder in folders}) == 1


# --- a whole batch


def planned(folder: Path, more: str = "") -> list[Task]:
    text = f"model: {folder}\nconcepts:\n  - {{name: star, kind: object}}\n  - {{name: striped, kind: style}}\n{more}"
    return plan(*parse_batch(text, Path("batch.yaml")))


def test_a_batch_becomes_a_task_per_concept_in_its_order(tiny_base: Path) -> None:
    tasks = planned(tiny_base)
    assert [made.concept.name for made in tasks] == ["star", "striped"]
    assert len({made.base_digest for made in tasks}) == 1 and len(tasks[0].base_digest) == 64
    assert [made.id for made in planned(tiny_base)] == [made.id for made in tasks]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"model: .* has no model_index\.json"):
        planned(tmp_path)


def test_one_run_trains_one_set_of_weights(tiny_base: Path) -> None:
    with pytest.raises(
        BatchError, match="one run trains one set of weights, not cross_attention and cross_attention_kv"
    ):
        planned(tiny_base, "method_by_kind: {style: {trained_weights: cross_attention}}\n")


def test_scores_have_a_key_of_their_own() -> None:
    settings = batch().evaluate
    assert settings is not None
    key = scores_key("pocket", "d", settings)
    assert key and key == scores_key("pocket", "d", batch().evaluate)
    assert key != scores_key("pocket", "d", settings.model_copy(update={"steps": 3}))
    assert key != scores_key("pocket", "other", settings)
    assert scores_key("pocket", "d", None) is None and scores_key("a/folder", "d", settings) is None


def test_a_method_that_starts_from_something_similar_is_told_from_what() -> None:
    method = {"method": {"name": "fixed_anchor", "anchor": "concept"}}
    with pytest.raises(
        BatchError, match=r"method\.anchor: concept asks for anchor_concept, or for `similar` of 'star'"
    ):
        plan(batch(**method), [Concept(**STAR)])
    assert plan(batch(**method), [Concept(**STAR, similar="cross")])
    assert plan(batch(method={**method["method"], "anchor_concept": "cross"}), [Concept(**STAR)])
