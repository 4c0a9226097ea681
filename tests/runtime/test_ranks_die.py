"""Processes that die, hang or cannot do it: nothing is lost, and nothing is tried for ever."""

import time
from pathlib import Path

import pytest
import short_runs as runs

from advanchor.batch.plan import make_tasks
from advanchor.batch.spec import BatchError
from advanchor.rundir.status import RunStatus
from advanchor.runtime.rehearsal import RehearsalCluster

Deltas = dict[str, str]


def kill(cluster: RehearsalCluster) -> None:
    cluster.ranks()[-1].kill()


def test_a_killed_rank_costs_one_attempt(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base)
    status = runs.drive(batch, runs.WhenTraining(cluster, lambda: kill(cluster)))
    assert status.exit_code == 0
    store = runs.store_of(batch)
    assert runs.events(store, "cat") == ["Broke", "Succeeded"]
    assert runs.events(store, "dog") == ["Succeeded"]
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}


def test_a_rank_killed_in_a_collective_takes_its_gang_with_it(
    cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path
) -> None:
    """Two ranks that meet in every step: the one that is left is in the middle of a collective for good."""
    batch = runs.write_batch(tmp_path, tiny_base, gpus_per_task=2)
    before: list[int] = []

    def strike() -> None:
        ranks = cluster.ranks()
        before.extend(rank.pid for rank in ranks)
        ranks[1].kill()

    assert runs.drive(batch, runs.WhenTraining(cluster, strike)).exit_code == 0
    store = runs.store_of(batch)
    assert len(before) == 2
    assert runs.events(store, "cat") == ["Broke", "Succeeded"]
    first = runs.deltas(store)
    assert {result["provenance"]["ranks"] for result in store.results()} == {2}

    again = tmp_path / "again"
    again.mkdir()
    batch = runs.write_batch(again, tiny_base, gpus_per_task=2)
    assert runs.drive(batch).exit_code == 0
    assert runs.deltas(runs.store_of(batch)) == first


def test_a_rank_that_hangs_is_given_up_at_the_deadline(
    cluster: RehearsalCluster, undisturbed: Deltas, task_seconds: float, tiny_base: Path, tmp_path: Path
) -> None:
    deadline = round(10 + 10 * task_seconds)
    batch = runs.write_batch(tmp_path, tiny_base, deadline_s=deadline)
    stopped_at = 0.0

    def strike() -> None:
        nonlocal stopped_at
        stopped_at = time.time()

    assert runs.drive(batch, runs.WhenTraining(cluster, strike, hang=True)).exit_code == 0
    store = runs.store_of(batch)
    first, second = runs.attempts(store, "cat")
    assert (first["event"], first["reason"]) == ("Broke", f"no result within {deadline} s") and first["charged"]
    assert second["event"] == "Succeeded" and second["started_at"] > stopped_at
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}


def test_a_task_that_always_crashes_fails_and_the_others_go_on(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, max_attempts=2)
    status = runs.drive(batch, runs.WhenTraining(cluster, lambda: kill(cluster), times=100))
    assert status.exit_code == 1
    assert [(row.name, row.status, row.attempts) for row in status.tasks] == [("cat", "failed", 2), ("dog", "done", 0)]
    assert "died" in status.tasks[0].reason.lower()
    store = runs.store_of(batch)
    assert runs.events(store, "cat") == ["Broke"] * 2 and runs.deltas(store) == {"dog": undisturbed["dog"]}

    seen: list[RunStatus] = []
    assert runs.drive(batch, seen.append).exit_code == 1  # it is not tried again by itself, ...
    assert runs.events(store, "cat") == ["Broke"] * 2
    assert not any(status.gangs or status.wanted_gangs for status in seen)

    assert "cat" in runs.command("retry", store.url, "--failed")  # ... but when somebody says so
    assert runs.drive(batch).exit_code == 0
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}


def test_bad_input_is_not_tried_again(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    """A name of more tokens than the text encoder takes, planned where nobody looked, is found out by the worker."""
    name = "antidisestablishmentarianism"
    batch = runs.write_batch(tmp_path, tiny_base, [name, "dog"])
    with pytest.raises(BatchError, match=f"concepts.0: .*'{name}' ends at token"):
        runs.planned(batch)
    status = runs.planned(batch, make_tasks).run()
    assert status.exit_code == 1
    store = runs.store_of(batch)
    assert runs.events(store, name) == ["Refused"] and name in status.tasks[0].reason
    assert runs.deltas(store) == {"dog": undisturbed["dog"]}
    assert runs.planned(batch, make_tasks).run().exit_code == 1
    assert runs.events(store, name) == ["Refused"]


def test_the_members_of_a_pack_that_breaks_are_tried_again_alone(
    cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path
) -> None:
    names = runs.NAMES[:3]
    batch = runs.write_batch(tmp_path, tiny_base, names, concepts_per_pack=3)
    status = runs.drive(batch, runs.WhenTraining(cluster, lambda: kill(cluster)))
    assert status.exit_code == 0 and [row.attempts for row in status.tasks] == [0, 0, 0]  # nobody is charged
    store = runs.store_of(batch)
    for name in names:
        together, alone = runs.attempts(store, name)
        assert (together["event"], together["packed"], alone["event"]) == ("Broke", True, "Succeeded")
    assert {(result["provenance"]["packed"], result["provenance"]["slots"]) for result in store.results()} == {(1, 3)}
    assert len(set(runs.deltas(store).values())) == 3
