"""Batches as users write them: what is wrong with them is said at once, with its place."""

from pathlib import Path

import pytest
from parsing import from_table, parse, problems

from advanchor.batch.file import parse_batch, read_batch
from advanchor.batch.presets import PRESETS
from advanchor.batch.sources import MAX_BATCH
from advanchor.batch.spec import BatchError, BatchSpec
from advanchor.concepts import Concept
from advanchor.methods import METHODS, adv_anchor, esd, uce

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
STAR = "model: pocket\nconcepts:\n  - {name: star, kind: object}\n"


def test_a_batch_needs_only_a_model_and_concepts() -> None:
    spec, concepts = parse(STAR)
    assert (spec.model, spec.output, spec.seed, spec.method) == ("pocket", "runs/batch", 0, adv_anchor.Settings())
    assert concepts == [Concept(name="star", kind="object")]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_that_come_with_the_program_are_right(path: Path) -> None:
    read = read_batch(path)
    assert read.concepts and read.text == path.read_text()


# --- one thing wrong

CONCEPT_FIELDS = "name, kind, templates, neutral, attributes, similar"
WRONG = {
    "bad value": (
        "  - {name: star, kind: objekt}",
        "3:18: concepts.0.kind: 'objekt' is not one of style, object, identity, explicit (did you mean 'object'?)",
    ),
    "bad value without a likeness": (
        "  - {name: star, kind: 7}",
        "3:18: concepts.0.kind: 7 is not one of style, object, identity, explicit",
    ),
    "missing": ("  - {name: star}", "3:5: concepts.0.kind: is missing"),
    "bad field": (
        "  - name: star\n    kind: object\n    template: [a]",
        f"5:5: concepts.0.template: 'template' is not one of {CONCEPT_FIELDS} (did you mean 'templates'?)",
    ),
    "no mapping": ("  - star", "3:5: concepts.0: 'star': input should be a valid dictionary or instance of Concept"),
    "a year": (
        "  - {name: 1984, kind: object}",
        "3:6: concepts.0.name: 1984 is not a text; YAML reads some words and all digits so: put the name in quotes",
    ),
    "no slot": (
        "  - {name: star, kind: object, templates: [a star], neutral: [a shape]}",
        "3:5: concepts.0: template 'a star' has no {} for the concept",
    ),
    "no neutral prompt": (
        "  - {name: star, kind: object, templates: ['a {}']}",
        "3:5: concepts.0: 1 templates need as many neutral prompts, not 0",
    ),
    "a line break": (
        '  - {name: "a\\nb", kind: object}',
        "3:6: concepts.0.name: name 'a\\nb' has an unprintable character: U+000A",
    ),
    "unknown preset": (
        "  - {preset: gallery/stlyes}",
        f"3:6: concepts.0.preset: 'gallery/stlyes' is not one of {', '.join(PRESETS)} (did you mean 'gallery/styles'?)",
    ),
    "bad field of a preset": (
        "  - {preset: gallery/styles, cuont: 2}",
        "3:30: concepts.0.cuont: 'cuont' is not one of preset, count (did you mean 'count'?)",
    ),
    "twice": (
        "  - {name: star, kind: object}\n  - {preset: gallery/objects}",
        "4:5: concepts.1: 'star' is already in the batch (concepts.0)",
    ),
    "method": (
        "  - {name: star, kind: object}\nmethod: {name: adv_ankor}",
        f"4:1: method: name: 'adv_ankor' is not one of {', '.join(METHODS)} (did you mean 'adv_anchor'?)",
    ),
    "method's value": (
        "  - {name: star, kind: object}\nmethod:\n  lr: 0",
        "5:3: method.lr: 0: input should be greater than 0",
    ),
    "method of a kind": (
        "  - {name: star, kind: object}\nmethod_by_kind: {style: {steps: 0}}",
        "4:26: method_by_kind.style.steps: 0: input should be greater than or equal to 1",
    ),
    "another method of a kind": (
        "  - {name: star, kind: object}\nmethod_by_kind: {style: {name: ecd}}",
        f"4:18: method_by_kind.style: name: 'ecd' is not one of {', '.join(METHODS)} (did you mean 'esd'?)",
    ),
    "its settings": (
        "  - {name: star, kind: object}\nmethod_by_kind: {style: {name: uce, lr: 3}}",
        f"4:37: method_by_kind.style.lr: 'lr' is not one of {', '.join(uce.Settings.model_fields)}",
    ),
    "section": (
        "  - {name: star, kind: object}\nsede: 1",
        f"4:1: sede: 'sede' is not one of {', '.join(BatchSpec.model_fields)} (did you mean 'seed'?)",
    ),
    "half a gang": (
        "  - {name: star, kind: object}\nresources: {gangs: 0.5}",
        "4:13: resources.gangs: 0.5 is neither auto nor a whole number above 0",
    ),
    "no GPU": (
        "  - {name: star, kind: object}\nresources: {gpus_per_task: 0}",
        "4:13: resources.gpus_per_task: 0 is neither auto nor a number above 0",
    ),
    "precision": (
        "  - {name: star, kind: object}\ndeepspeed: {precision: fp16}",
        "4:13: deepspeed.precision: 'fp16' is not one of fp32, bf16 (did you mean 'bf16'?)",
    ),
    "a key twice": (
        "  - {name: star, kind: object}\nseed: 1\nseed: 2",
        "5:1: the key 'seed' stands here a second time (first in line 4)",
    ),
    "a key twice further down": (
        "  - {name: star, kind: object, name: moon}",
        "3:32: the key 'name' stands here a second time (first in line 3)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_thing_wrong_is_one_line_with_its_place(case: str) -> None:
    concepts, message = WRONG[case]
    found = problems(f"model: pocket\nconcepts:\n{concepts}\n")
    assert found == [f"batch.yaml:{message}"]


@pytest.mark.parametrize("name", ["1984", "no", "null", "1e3", "2024-01-01", "[a]"])
def test_names_that_yaml_takes_for_something_else_must_be_quoted(name: str) -> None:
    [problem] = problems(f"model: pocket\nconcepts:\n  - {{kind: object, name: {name}}}\n")
    assert problem.startswith("batch.yaml:3:20: concepts.0.name: ")
    assert "is not a text; YAML reads some words" in problem
    _, [concept] = parse(f"model: pocket\nconcepts:\n  - {{kind: object, name: '{name}'}}\n")
    assert concept.name == name


@pytest.mark.parametrize("text", ["", "- star", "star", "7"])
def test_a_batch_is_a_mapping(text: str) -> None:
    assert problems(text) == ["batch.yaml:1:1: a batch is a mapping with at least model and concepts"]


def test_broken_yaml_has_a_place() -> None:
    [problem] = problems("model: pocket\nconcepts: [\n")
    assert problem.startswith("batch.yaml:3:1: not YAML: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"gone\.yaml: cannot be read"):
        read_batch(tmp_path / "gone.yaml")


def test_everything_wrong_is_said_at_once() -> None:
    text = "concepts:\n  - {name: 7, kind: stlye}\n  - {preset: x}\nseed: -1\nmethod: {lr: fast, stepz: 2}\n"
    found = [problem.split(": ")[0:2] for problem in problems(text)]
    assert sorted(found) == [
        ["batch.yaml:1:1", "model"],
        ["batch.yaml:2:15", "concepts.0.kind"],
        ["batch.yaml:2:6", "concepts.0.name"],
        ["batch.yaml:3:6", "concepts.1.preset"],
        ["batch.yaml:4:1", "seed"],
        ["batch.yaml:5:10", "method.lr"],
        ["batch.yaml:5:20", "method.stepz"],
    ]


def test_tables_and_doubles_are_read_though_settings_are_wrong(tmp_path: Path) -> None:
    text = from_table(tmp_path, "name,kind\nstar,objekt\nmoon,object\n", "  - {name: moon, kind: object}\nseed: -1\n")
    found = problems(text, folder=tmp_path)
    assert [problem.removeprefix(f"{tmp_path}/").split(": ")[0] for problem in found] == [
        "batch.yaml:5:1", "concepts.csv:2", "batch.yaml:4:5",
    ]  # fmt: skip


def test_settings_of_a_kind_repeat_no_mistake_of_the_method() -> None:
    found = problems(f"{STAR}method: {{lr: fast}}\nmethod_by_kind: {{style: {{steps: 0}}}}\n")
    assert [problem.split(": ")[1] for problem in found] == ["method.lr", "method_by_kind.style.steps"]
    found = problems(f"{STAR}method: {{name: adv_ankor}}\nmethod_by_kind: {{style: {{steps: 1}}}}\n")
    assert [problem.split(": ")[1] for problem in found] == ["method"]


def test_old_words_are_refused_with_the_new_ones() -> None:
    found = problems(f"{STAR}method: {{name: control}}\nevaluate: {{doses: [1]}}\n")
    assert [problem.split(": ", 1)[1] for problem in found] == [
        "method: name: 'control' is called 'no_op' since 0.2",
        "evaluate.doses: 'doses' is called 'scales' since 0.2",
    ]


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """It may be a pipe; what is reported later still has its place."""
    path = tmp_path / "batch.yaml"
    path.write_text(STAR)
    read = read_batch(path)
    path.unlink()
    assert read.located(["concepts.0: what", "model: what", "seed: what"]) == [
        f"{path}:3:5: concepts.0: what", f"{path}:1:1: model: what", f"{path}:1:1: seed: what",
    ]  # fmt: skip


def test_a_file_too_large(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text(STAR + "#" * MAX_BATCH)
    with pytest.raises(BatchError, match="has more than 4 MB"):
        read_batch(tmp_path / "batch.yaml")
    with pytest.raises(BatchError, match="has more than 4 MB"):
        read_batch(Path("/dev/zero"))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_bytes(b"model: pocket\nseed: \xff\n")
    with pytest.raises(BatchError, match=r"batch\.yaml:2: cannot be read: b'\\xff' is not UTF-8"):
        read_batch(tmp_path / "batch.yaml")


def test_reading_a_batch_asks_nothing_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    spec, [concept] = parse("model: someone/some-model\nconcepts:\n  - {name: star, kind: object}\n")
    assert spec.model == "someone/some-model" and concept.templates == ()


def test_no_concepts_at_all() -> None:
    [problem] = problems("model: pocket\nconcepts: []\n")
    assert problem.startswith("batch.yaml:2:1: concepts: ")


# --- numbers and overrides


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.0e-5", "0.00001", "1.e-05"])
def test_an_exponent_makes_a_number(number: str) -> None:
    spec, _ = parse(f"{STAR}method: {{lr: {number}}}\n")
    assert spec.method.lr == 1e-5


def test_overrides_change_and_add() -> None:
    spec, _ = parse(f"{STAR}method: {{lr: 1e-5}}\n", "method.lr=2e-5", "method.steps=7", "seed=3", "evaluate=null")
    assert isinstance(spec.method, adv_anchor.Settings)
    assert (spec.method.lr, spec.method.steps, spec.seed, spec.evaluate) == (2e-5, 7, 3, None)


def test_an_override_chooses_another_method() -> None:
    assert parse(STAR, "method.name=esd")[0].method == esd.Settings()


def test_the_output_may_be_given_apart() -> None:
    assert parse_batch(STAR, Path("batch.yaml"), output="elsewhere").spec.output == "elsewhere"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("method.lr", "--set method.lr: has no '='; write --set method.lr=2e-5"),
        ("model.lr=3", "--set model.lr=3: 'model' is not a section"),
        ("method.lr=0", "--set method.lr=0: method.lr: 0: input should be greater than 0"),
    ],
)
def test_wrong_overrides(override: str, problem: str) -> None:
    assert problems(STAR, override) == [problem]


def test_settings_of_a_kind_change_that_kind_alone() -> None:
    spec, _ = parse(f"{STAR}method: {{steps: 9}}\nmethod_by_kind: {{style: {{anchor_steps: 4}}}}\n")
    style, object_ = spec.method_for("style"), spec.method_for("object")
    assert style == object_.model_copy(update={"anchor_steps": 4}) and object_.model_dump()["steps"] == 9


def test_another_method_of_a_kind_inherits_nothing() -> None:
    spec, _ = parse(f"{STAR}method: {{steps: 9}}\nmethod_by_kind: {{style: {{name: esd, lr: 0.5}}}}\n")
    assert spec.method_for("style") == esd.Settings(lr=0.5)
    assert spec.method_for("object").model_dump()["steps"] == 9
