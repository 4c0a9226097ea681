"""Short runs on the tiny model: in this process, where a fault can be timed, or as the commands that users type."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
from patience import PATIENCE_S, wait_until
from typer.testing import CliRunner

from advanchor.artifacts import sha256
from advanchor.batch.file import read_batch
from advanchor.batch.plan import Task, dump_plan, load_plan, plan
from advanchor.batch.spec import BatchSpec
from advanchor.cli import app
from advanchor.concepts import Concept
from advanchor.rundir.status import RunStatus, TaskRow, View
from advanchor.rundir.store import Store
from advanchor.runtime.driver import Run
from advanchor.runtime.gang import Gang
from advanchor.runtime.rehearsal import RehearsalCluster

COMMAND = (sys.executable, "-P", "-m", "advanchor.cli")
NAMES = ("cat", "dog", "fox", "owl")


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


def planned(batch: Path, plan: Callable[[BatchSpec, Sequence[Concept]], list[Task]] = plan) -> Run:
    """A run of a batch that only has to be started; the tests' process is connected to the cluster."""
    read = read_batch(batch)
    spec, tasks = read.spec, plan(read.spec, read.concepts)
    store = Store(spec.output, spec.resources.storage_patience_s)
    store.keep_plan(read.text, (), dump_plan(spec, tasks))
    return Run(spec, tasks, store, lambda status: None)


def drive(batch: Path, fault: "View | WhenTraining" = lambda status: None) -> RunStatus:
    """Run a batch to its end; `fault` sees many times a second what a user sees."""
    run = planned(batch)
    run.view = fault.of(run) if isinstance(fault, WhenTraining) else fault
    return run.run()


class WhenTraining:
    """A fault that strikes the first `times` attempts of a concept that are well on their way.

    As soon as an attempt has begun, its rank is asked for nothing else until it is there. Then all ranks stand still
    while the fault strikes, so that no attempt ends before it does, however busy the machine is. Afterwards they go
    on, those that are left, unless they are to `hang`.
    """

    def __init__(
        self,
        cluster: RehearsalCluster,
        strike: Callable[[], object],
        concept: str = "cat",
        times: int = 1,
        *,
        hang: bool = False,
    ) -> None:
        self.cluster, self.strike, self.concept, self.times, self.hang = cluster, strike, concept, times, hang
        self.struck: set[int | None] = set()  # gangs

    def of(self, run: Run) -> View:
        def look(status: RunStatus) -> None:
            for row in status.tasks:
                fresh = len(self.struck) < self.times and row.gang not in self.struck
                if fresh and row.name == self.concept and row.status == "running":
                    self.struck.add(row.gang)
                    (gang,) = [gang for gang in run.gangs if gang.number == row.gang]
                    self.wait_and_strike(gang)

        return look

    def wait_and_strike(self, gang: Gang) -> None:
        ranks = self.cluster.ranks()
        wait_until(lambda: is_under_way(gang), "the attempt to get going", pause_s=0.01)
        for rank in ranks:
            rank.suspend()
        assert not ended_already(gang)
        self.strike()
        for rank in [] if self.hang else ranks:
            with contextlib.suppress(psutil.NoSuchProcess):
                rank.resume()


def is_under_way(gang: Gang) -> bool:
    assert not ended_already(gang)
    progress: Any = ray.get(gang.ranks[0].progress.remote())
    return progress.phase == "student" and progress.step >= 3


def ended_already(gang: Gang) -> bool:
    return bool(ray.wait(list(gang.pending), timeout=0)[0])


def is_training(row: TaskRow) -> bool:
    return row.status == "running" and row.phase == "student"


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
