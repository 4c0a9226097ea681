"""Every study from the command line, with next to no steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from advanchor.batch.plan import dump_plan, load_plan
from advanchor.cli import app
from advanchor.cli.study import narrowed, page_of
from advanchor.methods import problems
from advanchor.models import load
from advanchor.models.base import Base
from advanchor.pocket.wide import HIDDEN
from advanchor.studies import STUDIES
from advanchor.studies import load as load_study
from advanchor.studies.lab import Size, Trial, concepts, few, planned
from advanchor.studies.rivals import OURS, PROJECTED, SIMILAR, TEST_CONCEPTS, fair_rows, methods_for, trials_of

DOCS = Path(__file__).parents[2] / "docs" / "studies"
FORMER = ("tuning", "ablation")  # whose pages were made before their present protocol


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
def base() -> Base:
    return load("pocket")


@pytest.fixture(scope="module")
def everything(folder: Path) -> Result:
    return study(folder, "all")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_writes_its_page_its_figures_and_its_plot(name: str, everything: Result, folder: Path) -> None:
    page = (folder / f"pages/{name}.md").read_text()
    written = json.loads((folder / f"pages/{name}.json").read_text())
    assert written["rows"] and written["rank_seconds"] > 0 and written["command"].startswith(f"advanchor study {name} ")
    assert page in everything.stdout
    shown = load_study(name).summary(written["rows"])
    assert page.count("\n| ") > len(shown)  # and a head for each table
    assert (folder / f"pages/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_all_studies_say_what_they_took_together(everything: Result, folder: Path) -> None:
    """What two of them share counts once, what two of them examine in different ways twice."""
    results = [json.loads(path.read_text()) for path in folder.glob("runs/*/tasks/*/result.json")]
    minutes = sum(sum(result["seconds"].values()) for result in results) / 60
    assert f"All of it: {len(results)} erasures: {minutes:.0f} minutes of ranks" in everything.stderr


def test_nothing_is_done_again(everything: Result, folder: Path) -> None:
    results = {path: path.stat().st_mtime_ns for path in folder.glob("runs/evidence/tasks/*/result.json")}
    rows = json.loads((folder / "pages/rivals.json").read_text())["rows"]
    assert {row["kind"] for row in rows} == {"style"}
    erasures = [(row["method"], row["concept"], row["seed"]) for row in rows]
    assert erasures.count((OURS, TEST_CONCEPTS["style"][0], 0)) == 3  # at scale 0, 1 and that of a quick evaluation
    study(folder, "rivals")
    assert json.loads((folder / "pages/rivals.json").read_text())["rows"] == rows
    assert results == {path: path.stat().st_mtime_ns for path in results}


def test_a_page_is_made_again_from_its_figures_alone(everything: Result, folder: Path, tmp_path: Path) -> None:
    for name in ("rivals", "styles"):
        figures = (folder / f"pages/{name}.json").read_text()
        (tmp_path / f"{name}.json").write_text(figures)
        done = CliRunner().invoke(app, ["study", name, "--page", "-o", str(tmp_path)])
        assert done.exit_code == 0, done.output
        assert (tmp_path / f"{name}.md").read_text() == (folder / f"pages/{name}.md").read_text()
    (tmp_path / "rivals.json").write_text('{"rows": [1]}')
    done = CliRunner().invoke(app, ["study", "rivals", "--page", "-o", str(tmp_path)])
    assert done.exit_code == 2 and "has no figures of this version's rivals" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in FORMER])
def test_what_the_docs_show_is_what_their_figures_give(name: str) -> None:
    figures = json.loads((DOCS / f"{name}.json").read_text())
    assert page_of(name, load_study(name), figures)[0] == (DOCS / f"{name}.md").read_text()


def test_pages_of_a_former_protocol_say_so() -> None:
    for name in FORMER:
        assert "former protocol" in (DOCS / f"{name}.md").read_text()


def test_every_trained_rival_is_there_bare_and_behind_the_projection(base: Base) -> None:
    (concept,) = concepts(base, "object", ("heart",))
    rows = fair_rows(base, concept)
    for label, (own, settings) in rows.items():
        if label.endswith(PROJECTED.format("")):
            assert settings.retain_weight == 1 and settings.retain_without == HIDDEN  # type: ignore[union-attr]
            bare = rows[label.removesuffix(PROJECTED.format(""))]
            same = {"retain_weight": 0.0, "retain_without": ()}
            assert own == bare[0] and settings.model_copy(update=same) == bare[1]
    assert rows["esd, bare name"][0].templates == ("{}",) == rows["uce, bare name"][0].templates


@pytest.mark.parametrize("name", STUDIES)
def test_every_erasure_of_a_study_is_one_that_a_worker_takes(name: str, base: Base, tmp_path: Path) -> None:
    """A quick study does a few of them only."""
    chosen = load_study(name)
    trials = chosen.trials(base, Size(per_kind=1, seeds=1))
    spec, tasks = planned(tmp_path, trials, chosen.evaluation)
    assert load_plan(dump_plan(spec, tasks))[1] == tasks
    assert [problem for task in tasks for problem in problems(task.method, task.concept)] == []
    assert {type(trial.method) for trial in few(trials)} == {type(trial.method) for trial in trials}


def test_only_some_rows_or_kinds_are_run_if_asked(base: Base) -> None:
    trials = [trial for kind in ("object", "style") for trial in quick_trials(base, kind)]
    chosen = narrowed(trials, ["style", OURS])
    assert {(trial.concept.kind, trial.label) for trial in chosen} == {("style", OURS)}
    assert {trial.concept.kind for trial in narrowed(trials, [OURS])} == {"object", "style"}
    with pytest.raises(typer.Exit):
        narrowed(trials, ["styles"])


def quick_trials(base: Base, kind: Any) -> list[Trial]:
    chosen = concepts(base, kind, TEST_CONCEPTS[kind][:1])
    return trials_of(chosen, lambda concept: fair_rows(base, concept), Size(1, 1, quick=True))


def test_an_unknown_study_is_named_with_the_choices() -> None:
    done = CliRunner().invoke(app, ["study", "rival"])
    assert done.exit_code == 2 and "'rival' is not one of" in done.stderr and "did you mean 'rivals'?" in done.stderr


def test_the_similar_concept_is_another_of_the_same_kind(base: Base) -> None:
    for kind, names in TEST_CONCEPTS.items():
        (concept,) = concepts(base, kind, names[:1])
        assert (not concept.similar) == (kind == "explicit") == (SIMILAR not in methods_for(base, concept))
        assert concept.similar != concept.name
