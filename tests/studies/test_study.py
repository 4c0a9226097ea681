"""Every study from the command line, with next to no steps."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from advanchor.cli import app
from advanchor.models import load
from advanchor.studies import STUDIES
from advanchor.studies.lab import concepts
from advanchor.studies.rivals import SIMILAR, TEST_CONCEPTS, methods_for


def study(folder: Path, *options: str) -> Result:
    fixed = ("--quick", "--local", "--per-kind", "1", "--seeds", "1")
    where = ("-o", str(folder / "pages"), "--runs", str(folder / "runs"))
    words = ["study", *options, *fixed, *where]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["advanchor", *words])
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all studies: those that share erasures share them here, too."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def everything(folder: Path) -> Result:
    return study(folder, "all")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_writes_its_page_its_figures_and_its_plot(name: str, everything: Result, folder: Path) -> None:
    page = (folder / f"pages/{name}.md").read_text()
    written = json.loads((folder / f"pages/{name}.json").read_text())
    assert written["rows"] and written["rank_seconds"] > 0 and written["command"].startswith(f"advanchor study {name} ")
    assert page in everything.stdout
    assert page.count("\n| ") > len(written["rows"])  # and a head for each table
    assert (folder / f"pages/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_all_studies_say_what_they_took_together(everything: Result, folder: Path) -> None:
    """What two of them share counts once, what two of them examine in different ways twice."""
    results = [json.loads(path.read_text()) for path in folder.glob("runs/*/tasks/*/result.json")]
    minutes = sum(sum(result["seconds"].values()) for result in results) / 60
    assert f"All of it: {len(results)} erasures: {minutes:.0f} minutes of ranks" in everything.stderr


def test_nothing_is_done_again(everything: Result, folder: Path) -> None:
    results = {path: path.stat().st_mtime_ns for path in folder.glob("runs/comparison/tasks/*/result.json")}
    rows = json.loads((folder / "pages/rivals.json").read_text())["rows"]
    assert {row["kind"] for row in rows} == {"style"} and all(row["erasures"] == 1 for row in rows)
    study(folder, "rivals")
    assert json.loads((folder / "pages/rivals.json").read_text())["rows"] == rows
    assert results == {path: path.stat().st_mtime_ns for path in results}


def test_an_unknown_study_is_named_with_the_choices() -> None:
    done = CliRunner().invoke(app, ["study", "rival"])
    assert done.exit_code == 2 and "'rival' is not one of" in done.stderr and "did you mean 'rivals'?" in done.stderr


def test_the_similar_concept_is_another_of_the_same_kind() -> None:
    base = load("pocket")
    for kind, names in TEST_CONCEPTS.items():
        (concept,) = concepts(base, kind, names[:1])
        assert (not concept.similar) == (kind == "explicit") == (SIMILAR not in methods_for(base, concept))
        assert concept.similar != concept.name
