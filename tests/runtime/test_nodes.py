"""Machines that go: without a word, or with the notice that a cloud gives."""

from pathlib import Path

import short_runs as runs

from advanchor.runtime.rehearsal import RehearsalCluster

Deltas = dict[str, str]


def test_a_lost_node_costs_the_attempts_on_it(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base)
    strike = runs.WhenTraining(lambda: cluster.lose(cluster.nodes_with_ranks()[0]), "cat")
    assert runs.drive(batch, strike).exit_code == 0
    store = runs.store_of(batch)
    broken, repaired = runs.attempts(store, "cat")
    assert broken["event"] == "Broke" and broken["charged"]
    assert repaired["event"] == "Succeeded" and repaired["node"] != broken["node"]
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}


def test_a_preempted_node_costs_no_attempt(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    """With a single attempt allowed, the task is done all the same."""
    batch = runs.write_batch(tmp_path, tiny_base, max_attempts=1)
    strike = runs.WhenTraining(lambda: cluster.preempt(cluster.nodes_with_ranks()[0], notice_s=0.2), "cat")
    status = runs.drive(batch, strike)
    assert status.exit_code == 0, status.tasks
    store = runs.store_of(batch)
    interrupted, repaired = runs.attempts(store, "cat")
    assert interrupted["event"] == "Broke" and not interrupted["charged"]
    assert repaired["event"] == "Succeeded" and repaired["node"] != interrupted["node"]
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}
