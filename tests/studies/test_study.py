"""A study from the command line, with next to no steps."""

import json
from pathlib import Path

from typer.testing import CliRunner

from advanchor.cli import app
from advanchor.concepts import Concept, default_prompts
from advanchor.models import load
from advanchor.studies.rivals import TEST_CONCEPTS, methods_for, most_similar


def study(folder: Path, *options: str) -> str:
    fixed = ("--quick", "--local", "--per-kind", "1", "--seeds", "1")
    where = ("-o", str(folder / "pages"), "--runs", str(folder / "runs"))
    done = CliRunner().invoke(app, ["study", *options, *fixed, *where])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_rivals(tmp_path: Path) -> None:
    page = study(tmp_path, "rivals")
    rows = json.loads((tmp_path / "pages/rivals.json").read_text())["rows"]
    assert {row["kind"] for row in rows} == {"style"} and len(rows) == 11
    assert all(row["erasures"] == 1 for row in rows)
    assert "| style | esd | 1 |" in page and page in (tmp_path / "pages/rivals.md").read_text() + "\n"
    assert (tmp_path / "pages/rivals.png").read_bytes().startswith(b"\x89PNG")
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/rivals/tasks/*/result.json")}
    assert len(results) == len(rows)
    assert study(tmp_path, "rivals") == page  # nothing is done again
    assert results == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/rivals/tasks/*/result.json")}


def test_an_unknown_study_is_named_with_the_choices() -> None:
    done = CliRunner().invoke(app, ["study", "rival"])
    assert done.exit_code == 2 and "'rival' is not one of rivals (did you mean 'rivals'?)" in done.stderr


def test_the_similar_concept_is_another_of_the_same_kind() -> None:
    base = load("pocket")
    found = {}
    for kind, names in TEST_CONCEPTS.items():
        concept = Concept(name=names[0], kind=kind).with_prompts(default_prompts("pocket"))  # type: ignore[arg-type]
        found[kind] = most_similar(base, concept)
        assert ("fixed_anchor, similar" in methods_for(concept, found[kind])) == (kind != "explicit")
    assert found["explicit"] is None
    assert all(found[kind] != TEST_CONCEPTS[kind][0] for kind in found)
