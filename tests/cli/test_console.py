"""What came from a file or a person is shown on the terminal, and never obeyed by it."""

import ast
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from advanchor import cli
from advanchor.cli import app
from advanchor.cli.console import safe
from advanchor.rundir.store import Store

EVIL = "\x1b]0;pwned\x07\x9b31m[red]x[/y] :star:\u202e\r\x08"
SHOWN = r"\x1b]0;pwned\x07\x9b31m[red]x[/y] :star:\u202e\x0d\x08"
BATCH = "model: pocket\noutput: {output}\nevaluate: null\nconcepts:\n- {{name: star, kind: object}}\n"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "400", "TERM": "xterm-256color"})


def everything(result: Result) -> str:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    shown = result.output if result.exit_code else result.stdout  # libraries show their progress on stderr
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown), ascii(shown)
    return shown


def test_control_characters_are_shown_and_scripts_are_left_alone() -> None:
    assert safe(EVIL) == SHOWN
    assert safe("a\nb\tc") == r"a\x0ab\x09c" and safe("a\nb\tc", lines=True) == "a\nb\tc"
    assert safe("\ud800 \u2028") == r"\ud800 \u2028"
    for name in ("Ωmega 🦊", "👩\u200d🎨", "می\u200cخواهم", "[bold]"):
        assert safe(name) == name


def test_every_command_prints_by_the_one_way() -> None:
    """Elsewhere only JSON, in which control characters are escaped, and what `safe` gives are printed."""
    for path in Path(cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "typer.echo"):
                printed = ast.unparse(node.args[0])
                calls = ("json.dumps(", "safe(", "f'advanchor {advanchor.__version__}'", "f'error: {safe(line)}'")
                assert printed.startswith(calls), f"{path.name}:{node.lineno}: {printed}"


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "batch.yaml"
    path.write_text(BATCH.format(output=tmp_path / "run"))
    return path


def test_a_key_of_a_batch_does_not_steer_the_terminal(batch: Path) -> None:
    batch.write_text(batch.read_text() + '"\\e]0;pwned\\a": 1\n')
    assert "control character" in everything(call("plan", batch))


@pytest.mark.parametrize("folder", ["[/x]", "[red]x", ":star:"])
def test_a_path_is_no_markup(batch: Path, tmp_path: Path, folder: str) -> None:
    result = call("plan", batch, "-o", tmp_path / folder)
    assert result.exit_code == 0 and f"into {tmp_path / folder}" in everything(result)


@pytest.fixture
def run(batch: Path, tmp_path: Path) -> Path:
    """A run directory that was tampered with."""
    from advanchor.batch.file import read_batch
    from advanchor.batch.plan import dump_plan, make_tasks

    read = read_batch(batch)
    spec = read.spec
    (task,) = tasks = make_tasks(spec, read.concepts)
    store = Store(spec.output)
    store.keep_plan("", (), dump_plan(spec, tasks))
    row = {"id": task.id, "name": EVIL, "kind": EVIL, "status": "failed", "reason": EVIL + "\nand more"}
    store.write_json("status.json", {"model": EVIL, "method": EVIL, "state": "finished", "note": EVIL, "tasks": [row]})
    times = {"started_at": 1000.0, "ended_at": 1001.0}
    said = dict.fromkeys(("reason", "node", "then", "details"), EVIL)
    store.record_attempt(task, {"event": "Broke", "gang": 1, **times, **said})
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("command", "expected"),
    [(["status"], 1), (["results"], 0), (["results", "-f", "csv"], 0), (["logs"], 0), (["logs", "star"], 0)],
    ids=str,
)
def test_what_was_tampered_with_is_shown_escaped(run: Path, command: list[str], expected: int) -> None:
    result = call(command[0], run, *command[1:])
    assert result.exit_code == expected
    assert r"\x1b]0;pwned\x07" in everything(result)


def test_json_is_ascii(run: Path) -> None:
    found = call("status", run, "--json").stdout
    assert found.isascii() and json.loads(found)["tasks"][0]["name"] == EVIL


def test_names_of_files_and_folders_are_shown_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[31mb[red]"
    folder.mkdir()
    for command in ("status", "results", "report", "logs", "resume", "retry", "cancel"):
        more = ["--all"] if command == "cancel" else ["--failed"] if command == "retry" else []
        result = call(command, folder, *more)
        assert result.exit_code == 2 and r"a\x1b[31mb[red]" in everything(result)


@pytest.mark.parametrize("command", [["cancel", "--all"], ["retry", "star"], ["logs"], ["resume", "--local"]], ids=str)
def test_a_hostile_plan_writes_nothing_outside(run: Path, tmp_path: Path, command: list[str]) -> None:
    """A task id with a path in it once led out of the run directory."""
    (tmp_path / "VICTIM").mkdir()
    content = json.loads((run / "plan.json").read_text())
    content["tasks"][0]["id"] = "x/../../../VICTIM/evil"
    (run / "plan.json").write_text(json.dumps(content))
    result = call(command[0], run, *command[1:])
    assert result.exit_code == 2 and "VICTIM/evil" in everything(result) and len(result.stderr.splitlines()) == 1
    assert list((tmp_path / "VICTIM").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"VICTIM", "batch.yaml", "run"}
