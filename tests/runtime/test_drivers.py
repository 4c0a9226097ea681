"""Drivers that die, stop, share a run, or start elsewhere: the run directory is all that they need."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import short_runs as runs

from advanchor.runtime.rehearsal import RehearsalCluster
from advanchor.runtime.status import STATUS_FILE, RunStatus
from advanchor.runtime.store import Store

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
    runs.wait_until(lambda: store.results() or driver.poll() is not None, "a first result")
    while not broken(store):  # a rank that dies between two tasks breaks no attempt
        assert driver.poll() is None, runs.ended(driver)
        for rank in cluster.ranks():
            rank.kill()
        runs.wait_until(lambda: broken(store) or cluster.ranks(), "the driver to see it")
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
    drivers = [runs.start(tmp_path, "erase", str(batch)) for _ in range(2)]
    runs.wait_until(lambda: len(cluster.ranks()) == 2, "both drivers to have a gang")
    for driver in drivers:
        runs.ended(driver)
    assert runs.deltas(runs.store_of(batch)) == undisturbed


def test_an_interrupted_run_goes_on_from_its_directory_alone(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, runs.NAMES[:3])
    status = runs.drive(batch, runs.WhenTraining(lambda: signal.raise_signal(signal.SIGINT), "dog"))
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
    assert runs.drive(batch).exit_code == 0
    store = runs.store_of(batch)
    assert runs.deltas(store) == undisturbed
    assert {attempt["gang"] for name in runs.NAMES for attempt in runs.attempts(store, name)} == {1, 2}


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
