"""What a task is called: by what decides its numbers, in a folder that no name can break out of."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny

from advanchor import models
from advanchor.batch.file import parse_batch
from advanchor.batch.plan import Task, dump_plan, load_plan, make_task, make_tasks, plan, scores_key, slug
from advanchor.batch.spec import BatchError, BatchSpec
from advanchor.concepts import Concept
from advanchor.models.digests import folder_digest
from advanchor.models.profile import GENERAL
from advanchor.models.text import fill
from advanchor.pocket.profile import PROFILE

POCKET = folder_digest(models.resolve("pocket"))
OTHER = "of another base"

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
    read = parse_batch(text, Path("batch.yaml"))
    return plan(read.spec, read.concepts)


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


def test_all_kinds_of_mistakes_are_found_at_once(tiny_base: Path) -> None:
    more = (
        f"  - {{name: moon, kind: object, templates: ['{'very ' * 40}{{}}', 'a {{}}'], neutral: [a, b]}}\n"
        "method: {name: fixed_anchor, anchor: concept, batch_size: 3}\n"
        "method_by_kind: {style: {trained_weights: cross_attention}}\n"
        "evaluate: {attacks: [prefix]}\nresources: {gpus_per_task: 2}\n"
    )
    with pytest.raises(BatchError) as caught:
        planned(tiny_base, more)
    found = [problem.split(": ")[0] for problem in caught.value.problems]
    assert found == ["concepts.2", *["method.anchor"] * 3, "method_by_kind", "method.batch_size", "evaluate.attacks"]
    assert "but only 14 fit; shorten the template" in caught.value.problems[0]


def test_the_tokenizers_alone_find_what_a_run_would(tiny_base: Path) -> None:
    for folder in (tiny_base, *models.built_in().values()):
        for alone, whole in zip(models.encoders(folder), models.load(str(folder)).encoders, strict=True):
            prompts = [fill("a {} star", "Mira Vos"), fill("{}", "\N{SNOWMAN}")]
            assert alone.length == whole.length and alone.part == whole.part
            assert alone.positions(prompts[:1]) == whole.positions(prompts[:1])


def test_every_tokenizer_is_asked(tmp_path: Path) -> None:
    """FLUX's CLIP reads 77 tokens, its T5 more: of a prompt between the two, the pooled vector lacks the concept."""
    tiny.BUILD["flux_dev"]().save_pretrained(tmp_path)
    long = f"templates: ['{'red ' * 90}{{}}'], neutral: ['a star']"
    read = parse_batch(f"model: {tmp_path}\nconcepts:\n  - {{name: dog, kind: object, {long}}}\n", Path("batch.yaml"))
    with pytest.raises(BatchError, match=r"concepts\.0: text_encoder: .*only 75 fit; shorten the template"):
        plan(read.spec, read.concepts)


def test_a_concept_without_prompts_gets_the_base_s(tiny_base: Path) -> None:
    assert planned(tiny_base)[0].concept.templates == GENERAL.prompts["object"].templates
    read = parse_batch("model: pocket\nconcepts:\n  - {name: star, kind: object}\n", Path("batch.yaml"))
    (made,) = plan(read.spec, read.concepts)
    assert made.concept.templates == PROFILE.prompts["object"].templates


def test_a_plan_is_read_as_it_was_written() -> None:
    spec = batch(method_by_kind={"object": {"steps": 9}, "style": {"name": "esd"}})
    tasks = [make_task(spec, Concept(**STAR), POCKET)]
    assert load_plan(json.loads(json.dumps(dump_plan(spec, tasks)))) == (spec, tasks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: task.pop("profile"), "plan.json was written by version 0.1, whose runs this version cannot"),
        (lambda task: task.update(precision=[1]), "was written by another version of this program, or changed"),
        (lambda task: task["method"].update(name="control"), "'control' is called 'no_op' since 0.2"),
    ],
    ids=["an old one", "a changed one", "an old word"],
)
def test_a_plan_of_another_version_is_refused_in_one_line(change: Any, message: str) -> None:
    content = json.loads(json.dumps(dump_plan(batch(), [make_task(batch(), Concept(**STAR), POCKET)])))
    change(content["tasks"][0])
    with pytest.raises(BatchError) as caught:
        load_plan(content)
    [problem] = caught.value.problems
    assert message in problem and "\n" not in problem


@pytest.mark.parametrize("content", [[], {}, "x", None, {"spec": {}, "tasks": 7}])
def test_what_is_no_plan_is_refused(content: Any) -> None:
    with pytest.raises(BatchError):
        load_plan(content)


def test_scores_have_a_key_of_their_own() -> None:
    settings = batch().evaluate
    assert settings is not None
    key = scores_key(POCKET, settings)
    assert key and key == scores_key(POCKET, batch().evaluate)
    assert key != scores_key(POCKET, settings.model_copy(update={"steps": 3}))
    assert scores_key(OTHER, settings) is None
    assert scores_key(POCKET, None) is None and scores_key("d", settings) is None


def test_a_method_that_starts_from_something_similar_is_told_from_what() -> None:
    method = {"method": {"name": "fixed_anchor", "anchor": "concept"}}
    with pytest.raises(
        BatchError, match=r"method\.anchor: concept asks for anchor_concept, or for `similar` of 'star'"
    ):
        plan(batch(**method), [Concept(**STAR)])
    assert plan(batch(**method), [Concept(**STAR, similar="cross")])
    assert plan(batch(method={**method["method"], "anchor_concept": "cross"}), [Concept(**STAR)])


def test_seeds_are_those_of_earlier_versions() -> None:
    """Published digits depend on them: what decides nothing is not hashed, and a profile only names the task."""
    learned = {
        "name": "adv_anchor", "perturb_tokens": "concept_and_later", "steps": 70, "anchor_steps": 10, "lr": 7e-4,
        "anchor_lr": 1.5e-3, "batch_size": 4, "num_latents": 32,
    }  # fmt: skip
    concepts = [{"name": name, "kind": "style"} for name in ("striped", "gradient")]
    concepts.append({"name": "star", "kind": "object"})
    listed = parse_batch(json.dumps({"model": "pocket", "method": learned, "concepts": concepts}), Path())
    tasks = make_tasks(listed.spec, listed.concepts)
    assert [task.draws for task in tasks] == ["6128353d9a3b", "2144f589f317", "9f016e3161bd"]
    assert not {task.draws for task in tasks} & {task.id for task in tasks}
