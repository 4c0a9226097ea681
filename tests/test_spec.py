"""Batches as users write them: what is wrong with them is said at once, with its place."""

from pathlib import Path

import pytest

from advanchor.batch_file import parse_batch, read_batch
from advanchor.concepts import KINDS, POCKET_PROMPTS, PRESETS, PROMPTS, Concept
from advanchor.methods import METHODS, adv_anchor, esd, uce
from advanchor.spec import BatchError, BatchSpec

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
STAR = "model: pocket\nconcepts:\n  - {name: star, kind: object}\n"


def parse(text: str, *overrides: str, folder: Path = Path()) -> tuple[BatchSpec, list[Concept]]:
    return parse_batch(text, folder / "batch.yaml", overrides)


def problems(text: str, *overrides: str, folder: Path = Path()) -> list[str]:
    with pytest.raises(BatchError) as caught:
        parse(text, *overrides, folder=folder)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_a_batch_needs_only_a_model_and_concepts() -> None:
    spec, concepts = parse(STAR)
    assert (spec.model, spec.output, spec.seed, spec.method) == ("pocket", "runs/batch", 0, adv_anchor.Settings())
    assert concepts == [Concept(name="star", kind="object").with_prompts(POCKET_PROMPTS)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_configs_that_come_with_the_program_are_right(path: Path) -> None:
    _, concepts = read_batch(path)
    assert concepts


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
        "3:5: concepts.0: name 'a\\nb' is blank or has unprintable characters",
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
    assert parse_batch(STAR, Path("batch.yaml"), output="elsewhere")[0].output == "elsewhere"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("method.lr", "--set method.lr: has no '='; write --set method.lr=2e-5"),
        ("model.lr=3", "--set model.lr=3: 'model' is not a section"),
        ("method.lr=0", "batch.yaml:1:1: method.lr: 0: input should be greater than 0"),
    ],
)
def test_wrong_overrides(override: str, problem: str) -> None:
    assert problems(STAR, override) == [problem]


def test_settings_of_a_kind_change_that_kind_alone() -> None:
    spec, _ = parse(f"{STAR}method: {{steps: 9}}\nmethod_by_kind: {{style: {{anchor_steps: 4}}}}\n")
    style, object_ = spec.method_for("style"), spec.method_for("object")
    assert style == object_.model_copy(update={"anchor_steps": 4}) and object_.steps == 9


def test_another_method_of_a_kind_inherits_nothing() -> None:
    spec, _ = parse(f"{STAR}method: {{steps: 9}}\nmethod_by_kind: {{style: {{name: esd, lr: 0.5}}}}\n")
    assert spec.method_for("style") == esd.Settings(lr=0.5) and spec.method_for("object").steps == 9


# --- tables and presets


def from_table(folder: Path, table: str, more: str = "") -> str:
    (folder / "concepts.csv").write_text(table)
    return f"model: pocket\nconcepts:\n  - {{from: concepts.csv}}\n{more}"


def test_a_table_of_concepts(tmp_path: Path) -> None:
    text = from_table(tmp_path, 'kind,name,note\nobject,star,x\nstyle,"van Gogh, late",y\nobject,1984,z\n')
    _, concepts = parse(text, folder=tmp_path)
    assert [(c.name, c.kind) for c in concepts] == [("star", "object"), ("van Gogh, late", "style"), ("1984", "object")]


def test_every_bad_row_of_a_table_is_named(tmp_path: Path) -> None:
    text = from_table(
        tmp_path, "name,kind\nstar,object\nmoon,objekt\n,style\nonly\n", "  - {name: star, kind: object}\n"
    )
    table = tmp_path / "concepts.csv"
    assert problems(text, folder=tmp_path) == [
        f"{table}:3: kind: 'objekt' is not one of style, object, identity, explicit (did you mean 'object'?)",
        f"{table}:4: name: '': string should have at least 1 character",
        f"{table}:5: kind: None is not one of style, object, identity, explicit",
        f"{tmp_path}/batch.yaml:4:5: concepts.1: 'star' is already in the batch (concepts.0)",
    ]


def test_a_name_twice_in_a_table(tmp_path: Path) -> None:
    [problem] = problems(from_table(tmp_path, "name,kind\nstar,object\nstar,style\n"), folder=tmp_path)
    assert problem.endswith("concepts.0: 'star' is already in the batch (concepts.0)")


def test_a_table_without_its_columns_or_not_there(tmp_path: Path) -> None:
    text = from_table(tmp_path, "title,kind\nstar,object\n", "  - {from: gone.csv}\n")
    first, second = problems(text, folder=tmp_path)
    assert first == f"{tmp_path}/batch.yaml:3:5: concepts.0.from: {tmp_path}/concepts.csv:1: has no column name"
    assert second.startswith(f"{tmp_path}/batch.yaml:4:5: concepts.1.from: {tmp_path}/gone.csv cannot be read")


def test_a_preset_may_be_cut() -> None:
    _, concepts = parse("model: pocket\nconcepts:\n  - {preset: gallery/identities, count: 3}\n")
    assert [concept.name for concept in concepts] == ["mira morwin", "anton zanton", "lena toric"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_names_different_concepts_with_prompts(preset: str) -> None:
    _, concepts = parse(f"model: pocket\nconcepts:\n  - {{preset: {preset}}}\n")
    assert len(concepts) == len(PRESETS[preset]()) and all(concept.templates for concept in concepts)


@pytest.mark.parametrize("prompts", [PROMPTS, POCKET_PROMPTS], ids=["any model", "pocket"])
def test_every_kind_has_prompts_that_a_concept_may_have(prompts: dict) -> None:
    assert prompts.keys() == set(KINDS)
    for kind, pair in prompts.items():
        concept = Concept(name="star", kind=kind, templates=pair.templates, neutral=pair.neutral)
        assert len(set(concept.templates)) == len(concept.templates) > 1
        assert not any("{}" in prompt for prompt in concept.neutral)


def test_prompts_of_ones_own_are_kept() -> None:
    text = "model: x/y\nconcepts:\n  - {name: star, kind: object, templates: ['one {}'], neutral: [one]}\n"
    _, [concept] = parse(text)
    assert (concept.templates, concept.neutral) == (("one {}",), ("one",))
