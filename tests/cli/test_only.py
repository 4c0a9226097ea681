"""advanchor erase --only: some concepts first, the rest later, in one run directory."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from advanchor.cli import app

NAMES = ("circle", "star", "someone")


def advanchor(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output


def erase(batch: Path, *arguments: str) -> tuple[int, str]:
    return advanchor("erase", batch, "--local", *arguments)


def results(folder: Path) -> set[str]:
    return {json.loads(path.read_text())["concept"]["name"] for path in folder.glob("tasks/*/result.json")}


def test_the_first_then_one_by_name_then_all(tiny_base: Path, tmp_path: Path) -> None:
    prompts = {"kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}
    content = {"model": str(tiny_base), "output": str(tmp_path / "run"), "method": {"name": "uce"}, "evaluate": None}
    batch = tmp_path / "batch.yaml"
    batch.write_text(json.dumps(content | {"concepts": [{"name": name, **prompts} for name in NAMES]}))
    for bad in (["--only", "0"], ["--only", "stra"], ["--only", "1", "--only", "star"]):
        assert erase(batch, *bad)[0] == 2
    run = tmp_path / "run"
    assert not run.exists()
    code, said = erase(batch, "--only", "1")
    assert code == 0 and results(run) == {"circle"} and f"2 wait; to go on with them: advanchor resume {run}" in said
    assert len(json.loads((run / "plan.json").read_text())["tasks"]) == 3
    assert states(run) == {"circle": "done", "star": "waiting", "someone": "waiting"}
    assert erase(batch, "--only", "someone")[0] == 0 and results(run) == {"circle", "someone"}
    assert states(run) == {"circle": "done", "star": "waiting", "someone": "done"}
    assert advanchor("status", run)[0] == 0 and advanchor("resume", run, "--local")[0] == 0
    assert states(run) == dict.fromkeys(NAMES, "done")


def states(run: Path) -> dict[str, str]:
    """Of every concept of the batch, in its order: status.json, `results` and the report say the same."""
    listed = json.loads((run / "status.json").read_text())["tasks"]
    found = {row["name"]: row["status"] for row in listed}
    told = json.loads(advanchor("results", run, "--json")[1])
    assert {row["name"]: row["status"] for row in told} == found
    page = (run / "report" / "index.html").read_text()
    for name, state in found.items():
        assert re.search(rf'<tr[^>]* data-name="{name}"[^>]* data-status="{state}"', page), (name, state)
    return found
