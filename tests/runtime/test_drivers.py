"""Drivers that die, stop, share a run, or start elsewhere: the run directory is all that they need."""

import contextlib
import json
import shutil
import signal
from pathlib import Path

import pytest
import ray
import short_runs as runs
from patience import PATIENCE_S, wait_until

from advanchor.batch.file import read_batch
from advanchor.batch.plan import plan
from advanchor.rundir.status import STATUS_FILE, RunStatus
from advanchor.rundir.store import Store
from advanchor.runtime.place import Place, drive
from advanchor.runtime.rehearsal import RehearsalCluster

Deltas = dict[str, str]


def result_times(store: Store) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(store.root).glob("tasks/*/*") if path.is_file()}


def broken(store: Store) -> list[str]:
    return [name for name in runs.NAMES if "Broke" in runs.events(store, name)]


def test_a_killed_driver_loses_the_attempts_in_flight_and_nothing_else(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, runs.NAMES)
    store = runs.store_of(batch)
    driver = runs.start(tmp_path, "erase", str(batch))
    wait_until(lambda: store.results() or driver.poll() is not None, "a first result", pause_s=0.01)
    for rank in cluster.ranks():
        rank.suspend()  # or it might be done with all of them before it is killed
    while not broken(store):  # a rank that dies between two tasks breaks no attempt
        assert driver.poll() is None, runs.ended(driver)
        for rank in cluster.ranks():
            rank.kill()
        wait_until(lambda: broken(store) or cluster.ranks(), "the driver to see it")
    driver.kill()
    driver.communicate()
    (once_broken,), before = broken(store), result_times(store)
    assert 1 <= len(store.results()) < len(runs.NAMES)

    told = json.loads(runs.command("status", store.url, "--json", code=1))
    assert told["state"] == "running" and [row["name"] for row in told["tasks"]] == list(runs.NAMES)
    store.write_json(STATUS_FILE, told | {"updated_at": told["updated_at"] - 60})
    assert "its driver is gone" in runs.command("status", store.url, code=1)

    seen: dict[str, int] = {}

    def look(status: RunStatus) -> None:
        seen.update({row.name: max(row.attempts, seen.get(row.name, 0)) for row in status.tasks})

    assert runs.drive(batch, look).exit_code == 0
    assert seen == {name: int(name == once_broken) for name in runs.NAMES}
    assert runs.deltas(store) == undisturbed
    assert {path: changed for path, changed in result_times(store).items() if path in before} == before


def test_two_drivers_on_one_run_directory_do_no_harm(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, runs.NAMES)
    first = runs.start(tmp_path, "erase", str(batch))
    wait_until(lambda: cluster.ranks() or first.poll() is not None, "the first driver to have a gang")
    first.send_signal(signal.SIGSTOP)  # or it might be done before the second has started
    second = runs.start(tmp_path, "erase", str(batch))
    wait_until(lambda: len(cluster.ranks()) == 2 or second.poll() is not None, "both drivers to have a gang")
    assert second.poll() is None, runs.ended(second)
    first.send_signal(signal.SIGCONT)
    for driver in (first, second):
        runs.ended(driver)
    assert runs.deltas(runs.store_of(batch)) == undisturbed


def test_an_interrupted_run_goes_on_from_its_directory_alone(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, runs.NAMES[:3])
    status = runs.drive(batch, runs.WhenTraining(cluster, lambda: signal.raise_signal(signal.SIGINT), "dog"))
    assert status.exit_code == 130
    store, elsewhere = runs.store_of(batch), Store(str(tmp_path / "elsewhere"))
    assert runs.events(store, "dog") == ["Interrupted"] and runs.deltas(store) == {"cat": undisturbed["cat"]}
    batch.unlink()
    shutil.move(store.root, elsewhere.root)
    before = result_times(elsewhere)
    runs.run(tmp_path, "resume", elsewhere.root)
    assert runs.deltas(elsewhere) == {name: undisturbed[name] for name in runs.NAMES[:3]}
    assert {path: changed for path, changed in result_times(elsewhere).items() if path in before} == before


def test_neither_the_number_of_gangs_nor_the_order_changes_a_bit(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, runs.NAMES[::-1], gangs=2)
    run = runs.planned(batch)

    def wait_for_both(status: RunStatus) -> None:
        """At the first view no task has been handed out; the first gang could do all before the second is ready."""
        starting = [ref for gang in run.gangs if not gang.is_ready for ref in gang.pending]
        if starting:
            ray.wait(starting, num_returns=len(starting), timeout=PATIENCE_S)

    run.view = wait_for_both
    assert run.run().exit_code == 0
    store = runs.store_of(batch)
    assert runs.deltas(store) == undisturbed
    assert {attempt["gang"] for name in runs.NAMES for attempt in runs.attempts(store, name)} == {1, 2}


def test_a_relative_output_is_where_the_command_was_given(
    cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joining a cluster steps into another folder; workers are told the place all the same."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    joining = "advanchor.runtime.ray_cluster.connected"  # this process has joined already, and only steps
    monkeypatch.setattr(joining, lambda *_, **__: contextlib.chdir(elsewhere))
    monkeypatch.chdir(tmp_path)
    read = read_batch(runs.write_batch(tmp_path, tiny_base, ["cat"], output="run"))
    tasks = plan(read.spec, read.concepts)
    assert drive(read.spec, tasks, Store(read.spec.output), lambda status: None, Place()).exit_code == 0
    assert Store(str(tmp_path / "run")).result(tasks[0]) and not list(elsewhere.iterdir())


def test_without_an_address_a_run_starts_a_ray_of_its_own(
    cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another cluster runs on this machine, which Ray would join if it was not told otherwise."""
    monkeypatch.delenv("RAY_ADDRESS")
    batch = runs.write_batch(tmp_path, tiny_base, ["cat"])
    runs.run(tmp_path, "erase", str(batch))
    (attempt,) = runs.attempts(runs.store_of(batch), "cat")
    assert attempt["event"] == "Succeeded" and not any(
        node.node_ip_address in attempt["node"] for node in cluster.nodes()
    )
