"""Short runs on the tiny model: in this process, where a fault can be timed, or as the commands that users type."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from advanchor.artifacts import sha256
from advanchor.batch_file import read_batch
from advanchor.cli import app
from advanchor.plan import Task, dump_plan, load_plan, plan
from advanchor.runtime.batch import Run
from advanchor.runtime.status import RunStatus, TaskRow, View
from advanchor.runtime.store import Store

COMMAND = (sys.executable, "-P", "-m", "advanchor.cli")
NAMES = ("cat", "dog", "fox", "owl")
PATIENCE_S = 1200.0  # for anything that takes seconds on an idle machine


def write_batch(
    folder: Path, base: Path, names: Sequence[str] = NAMES[:2], output: str | None = None, **resources: Any
) -> Path:
    """A batch whose tasks take about a second; one gang unless `resources` say otherwise."""
    prompts = {"kind": "object", "templates": ["a {}"], "neutral": ["a pet"]}
    content = {
        "model": str(base),
        "output": output or str(folder / "run"),
        "method": {"steps": 25, "anchor_steps": 2, "num_latents": 4, "latent_steps": 2, "lr": 1e-3, "anchor_lr": 1e-2},
        "concepts": [{"name": name, **prompts} for name in names],
        "evaluate": None,
        "resources": {"device": "cpu", "gangs": 1, **resources},
    }
    (folder / "batch.yaml").write_text(json.dumps(content))
    return folder / "batch.yaml"


# --- in this process


def planned(batch: Path) -> Run:
    """A run of a batch that only has to be started; the tests' process is connected to the cluster."""
    spec, concepts = read_batch(batch)
    tasks = plan(spec, concepts)
    store = Store(spec.output, spec.resources.storage_patience_s)
    store.keep_plan(batch.read_text(), (), dump_plan(spec, tasks))
    return Run(spec, tasks, store, lambda status: None)


def drive(batch: Path, fault: View = lambda status: None) -> RunStatus:
    """Run a batch to its end; `fault` sees many times a second what a user sees."""
    run = planned(batch)
    run.view = fault
    return run.run()


class WhenTraining:
    """A fault that strikes the first `times` attempts of a concept (of any, if None) that are well on their way."""

    def __init__(self, strike: Callable[[], object], concept: str | None = None, times: int = 1) -> None:
        self.strike, self.concept, self.times = strike, concept, times
        self.struck: set[tuple[str, int | None]] = set()

    def __call__(self, status: RunStatus) -> None:
        for row in status.tasks:
            attempt = row.name, row.gang
            if len(self.struck) < self.times and attempt not in self.struck and is_training(row, self.concept):
                self.struck.add(attempt)
                self.strike()


def is_training(row: TaskRow, concept: str | None) -> bool:
    return row.status == "running" and row.step >= 3 and row.phase == "student" and concept in (None, row.name)


# --- as a user


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command in a folder; Ray's files go to a home of its own."""
    (folder / "home").mkdir(exist_ok=True)
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"HOME": str(folder / "home"), "COLUMNS": "200"}
    return subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=environment, **pipes)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it has printed for its user."""
    try:
        output, errors = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    assert process.returncode == code, f"{process.args}: {output}\n{errors}"
    return output


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    return ended(start(folder, *arguments), code)


def command(*arguments: str, code: int = 0) -> str:
    """The same in this process, for commands that only look or ask: what they print, without seconds of imports."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.stdout


def wait_until(condition: Callable[[], object], what: str) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < patience, f"in vain: {what}"
        time.sleep(0.1)


# --- what is in a run directory


def store_of(batch: Path) -> Store:
    return Store(json.loads(batch.read_text())["output"])


def tasks_of(store: Store) -> list[Task]:
    return load_plan(store.read_json("plan.json"))[1]


def attempts(store: Store, name: str) -> list[dict[str, Any]]:
    (task,) = [task for task in tasks_of(store) if task.concept.name == name]
    return store.attempts().get(task.folder, [])


def events(store: Store, name: str) -> list[str]:
    return [attempt["event"] for attempt in attempts(store, name)]


def deltas(store: Store) -> dict[str, str]:
    """The sha256 of every delta by its concept; each file is read and is what its result says, and is there once."""
    found = {}
    for task in tasks_of(store):
        if result := store.result(task):
            found[task.concept.name] = sha256(store.read_file(task, "delta"))
            assert found[task.concept.name] == result["files"]["delta"]["sha256"]
            assert store.read_file(task, "anchor")
            assert len(store.find("tasks", task.folder, "delta-*")) == 1
    return found
