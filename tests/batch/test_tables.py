"""Concepts from tables and presets, and the prompts of a kind."""

from pathlib import Path

import pytest
from parsing import from_table, parse, problems

from advanchor.batch.presets import PRESETS
from advanchor.batch.spec import BatchSpec
from advanchor.concepts import KINDS, Concept
from advanchor.models.profile import GENERAL
from advanchor.pocket.profile import POCKET_PROMPTS


def test_a_table_of_concepts(tmp_path: Path) -> None:
    text = from_table(tmp_path, 'kind,name,#note\nobject,star,x\nstyle,"van Gogh, late",y\nobject,1984,z\n')
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
        f"{table}:5: kind: is missing",
        f"{tmp_path}/batch.yaml:4:5: concepts.1: 'star' is already in the batch ({table}:2)",
    ]


def test_a_name_twice_in_a_table(tmp_path: Path) -> None:
    [problem] = problems(from_table(tmp_path, "name,kind\nstar,object\nstar,style\n"), folder=tmp_path)
    assert problem == f"{tmp_path}/concepts.csv:3: 'star' is already in the batch ({tmp_path}/concepts.csv:2)"


TABLES = {
    "a list of names": (
        "Van Gogh\nPicasso\n",
        "(here it begins with 'Van Gogh'), then one concept a line: Van Gogh,style",
    ),
    "prompts": (
        "name,kind,templates\nstar,object,a {}\n",
        "csv:1: the column 'templates' is not one of name, kind, similar: it can be given in the batch file only",
    ),
    "a remark": (
        "name,kind,note\nstar,object,x\n",
        "concepts.csv:1: the column 'note' is not one of name, kind, similar: a title that begins with # is not read",
    ),
    "too many cells": (
        "name,kind\nGogh, late,style\n",
        "concepts.csv:2: has 3 cells under 2 columns: put a name with a comma in double quotes",
    ),
    "a cell too long": (
        "name,kind\nstar,object\n" + "x" * 140_000 + ",style\n",
        "concepts.csv:3: cannot be read: field larger than field limit (131072)",
    ),
    "a control character": (
        "name,kind\nst\x1bar,object\n",
        "concepts.csv:2: name: name 'st\\x1bar' has an unprintable character: U+001B",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_what_is_wrong_with_a_table(case: str, tmp_path: Path) -> None:
    table, message = TABLES[case]
    [problem] = problems(from_table(tmp_path, table), folder=tmp_path)
    assert problem.endswith(message)


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("utf-16", ":1: cannot be read: b'\\xff' is not UTF-8; save it as UTF-8"),
        ("latin-1", ":2: cannot be read: b'\\xe9'"),
    ],
)
def test_a_table_in_another_encoding(encoding: str, line: str, tmp_path: Path) -> None:
    text = from_table(tmp_path, "")
    (tmp_path / "concepts.csv").write_bytes("name,kind\nCézanne,style\n".encode(encoding))
    [problem] = problems(text, folder=tmp_path)
    assert f"concepts.csv{line}" in problem and "\n" not in problem


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "."])
def test_a_table_is_a_file(name: str) -> None:
    [problem] = problems(f"model: pocket\nconcepts:\n  - {{from: {name}}}\n")
    assert problem.endswith("cannot be read: it is not a file")


def test_a_table_without_its_columns_or_not_there(tmp_path: Path) -> None:
    text = from_table(tmp_path, "title,kind\nstar,object\n", "  - {from: gone.csv}\n")
    first, second = problems(text, folder=tmp_path)
    said = "has no column name; a table begins with the line name,kind"
    assert first == f"{tmp_path}/batch.yaml:3:5: concepts.0.from: {tmp_path}/concepts.csv:1: {said}"
    assert second.startswith(f"{tmp_path}/batch.yaml:4:5: concepts.1.from: {tmp_path}/gone.csv: cannot be read")


def test_a_preset_may_be_cut() -> None:
    _, concepts = parse("model: pocket\nconcepts:\n  - {preset: gallery/identities, count: 3}\n")
    assert [concept.name for concept in concepts] == ["mira morwin", "anton zanton", "lena toric"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_names_different_concepts(preset: str) -> None:
    _, concepts = parse(f"model: pocket\nconcepts:\n  - {{preset: {preset}}}\n")
    assert len(concepts) == len(PRESETS[preset]()) > 0


@pytest.mark.parametrize("prompts", [GENERAL.prompts, POCKET_PROMPTS], ids=["any model", "pocket"])
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


@pytest.mark.filterwarnings("error")
def test_presets_and_tables_are_written_into_a_plan_as_they_were_given(tmp_path: Path) -> None:
    text = from_table(tmp_path, "name,kind\nstar,object\n", "  - {preset: gallery/mark}\n")
    spec, _ = parse(text, folder=tmp_path)
    entries = spec.model_dump(mode="json", by_alias=True)["concepts"]
    assert [next(iter(entry)) for entry in entries] == ["from", "preset"]
    assert BatchSpec.model_validate(spec.model_dump(mode="json", by_alias=True)) == spec
