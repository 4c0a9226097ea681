"""advanchor init and advanchor schema: from a list to a batch that every other command takes."""

import json
import re
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from advanchor.batch import yaml_lines
from advanchor.batch.file import read_batch
from advanchor.batch.schema import SCHEMA_FILE, dumped
from advanchor.cli import app

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


def init(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def checked(batch: str) -> None:
    """As an editor does. Raises jsonschema.ValidationError."""
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(yaml_lines.parse(batch).data)


def test_a_list_becomes_a_batch_that_plan_takes(tmp_path: Path) -> None:
    names, batch = tmp_path / "names.csv", tmp_path / "batch.yaml"
    names.write_text('artist,type\nstriped,style\n"no",object\n1e5,object\n"{x: y}",explicit\n')
    done = init(names, "-o", batch)
    assert done.exit_code == 0 and "4 concepts for pocket" in done.stdout, done.output
    assert "name from 'artist', kind from 'type'" in done.stderr
    read = read_batch(batch)
    assert [concept.name for concept in read.concepts] == ["striped", "no", "1e5", "{x: y}"]
    assert read.spec.method.name == "guarded_anchor" and read.spec.method_for("style").lr == 2e-3  # type: ignore[union-attr]
    planned = CliRunner().invoke(app, ["plan", str(batch), "-o", str(tmp_path / "run")])
    assert planned.exit_code == 0 and "4 tasks" in planned.stdout, planned.output
    checked(batch.read_text())
    again = init(names, "-o", batch)
    assert again.exit_code == 2 and "is there already; --force overwrites it" in again.stderr
    assert init(names, "-o", batch, "--force").exit_code == 0


def test_a_base_without_a_scorer_is_scored_by_clip(tiny_base: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("star\nring\n")
    assert init(names, "-o", tmp_path / "a.yaml", "--model", tiny_base, "--kind", "object").exit_code == 0
    read = read_batch(tmp_path / "a.yaml")
    assert read.spec.evaluate and read.spec.evaluate.scorer
    assert read.spec.evaluate.scorer.others == {"object": ("star", "ring")}
    assert (
        init(names, "-o", tmp_path / "b.yaml", "--model", tiny_base, "--kind", "object", "--clip", "none").exit_code
        == 0
    )
    assert read_batch(tmp_path / "b.yaml").spec.evaluate is None
    checked((tmp_path / "a.yaml").read_text())


@pytest.mark.parametrize("model", ["black-forest-labs/FLUX.1-dev", "someone/something"])
def test_nothing_is_fetched(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    (tmp_path / "names.txt").write_text("star\n")
    done = init(tmp_path / "names.txt", "-o", tmp_path / "a.yaml", "--model", model, "--kind", "object")
    assert done.exit_code == 0 and ("not known before it is fetched" in done.output) == (model == "someone/something")
    read_batch(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--kind", "stlye"], "--kind: 'stlye' is not one of style"),
        (["--column", "name"], "--column 'name': is not of the form A=B"),
        (["--column", "nmae=x"], "--column: 'nmae' is not one of name"),
        (["--kind", "style", "--model", "./nowhere"], "model './nowhere' is neither a folder"),
        ([], "names.txt:1: no kind is given: say --kind style"),
        (["--kind", "style", "--encoding", "klingon"], "--encoding klingon: Python knows no such"),
        (["--kind", "style", "-o", "/proc/nothing/batch.yaml"], "--output /proc/nothing/batch.yaml: "),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(arguments: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("star\n")
    done = init(tmp_path / "names.txt", "-o", tmp_path / "batch.yaml", *arguments)
    errors = [said for said in done.stderr.splitlines() if said.startswith("error: ")]
    assert done.exit_code == 2 and len(errors) == 1 and line in errors[0], done.output
    assert not (tmp_path / "batch.yaml").exists()


def test_a_file_s_name_cannot_write_into_the_batch(tmp_path: Path) -> None:
    names = tmp_path / "a\nmodel: evil\n#.txt"
    names.write_text("star\n")
    assert init(names, "-o", tmp_path / "batch.yaml", "--kind", "object").exit_code == 0
    assert read_batch(tmp_path / "batch.yaml").spec.model == "pocket"


# --- the schema


def test_the_schema_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text() == dumped(), "make it anew: python -m advanchor.batch.schema"
    assert CliRunner().invoke(app, ["schema"]).stdout == SCHEMA_FILE.read_text()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_names_the_schema_and_fits_it(path: Path) -> None:
    text = path.read_text()
    [found] = LINE.findall(text)
    assert text.startswith("# yaml-language-server") and (path.parent / found).resolve() == SCHEMA_FILE
    checked(text)


@pytest.mark.parametrize(
    "change",
    ["sede: 1", "seed: -1", "seed: x", "method: {name: edd}", "method: {name: esd, lr: x}", "method: {steps: 0}",
     "resources: {gangs: many}", "method_by_kind: {style: {lrr: 1}}"],
)  # fmt: skip
def test_an_editor_sees_mistakes(change: str) -> None:
    batch = "model: pocket\nconcepts: [{name: a, kind: style}, {preset: x}, {from: a.csv}]\n"
    checked(batch)
    with pytest.raises(jsonschema.ValidationError):
        checked(batch + change + "\n")


def test_every_setting_is_described() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    groups = {"batch": schema, **schema["$defs"]}
    bare = {
        f"{name}.{key}"
        for name, group in groups.items()
        for key, value in group["properties"].items()
        if "description" not in value and key != "name" and "$ref" not in value
    }
    assert not bare


def test_init_names_a_schema_that_an_editor_can_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a file's URL, or relative where the program is installed below the batch's folder."""
    (tmp_path / "names.txt").write_text("star\n")
    assert init(tmp_path / "names.txt", "-o", tmp_path / "batch.yaml", "--kind", "object").exit_code == 0
    [found] = LINE.findall((tmp_path / "batch.yaml").read_text())
    assert Path(url2pathname(urlparse(found).path)) == SCHEMA_FILE
    from advanchor.batch.starter import schema_reference

    assert schema_reference(ROOT / "batch.yaml") == SCHEMA_FILE.relative_to(ROOT).as_posix()
