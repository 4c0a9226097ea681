"""Machines that come and go: without a word, or with the notice that a cloud gives."""

import threading
from pathlib import Path

import short_runs as runs

from advanchor.runtime.rehearsal import RehearsalCluster, ranks_on, raylet

Deltas = dict[str, str]


def test_a_lost_node_costs_the_attempts_on_it(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base)
    strike = runs.WhenTraining(cluster, lambda: cluster.lose(cluster.nodes_with_ranks()[0]))
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

    def preempt() -> None:
        cluster.preempt(cluster.nodes_with_ranks()[0], notice_s=0.2)

    status = runs.drive(batch, runs.WhenTraining(cluster, preempt))
    assert status.exit_code == 0, status.tasks
    store = runs.store_of(batch)
    interrupted, repaired = runs.attempts(store, "cat")
    assert interrupted["event"] == "Broke" and not interrupted["charged"]
    assert repaired["event"] == "Succeeded" and repaired["node"] != interrupted["node"]
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}


def test_a_preempted_node_that_cannot_be_reached_at_first_costs_no_attempt(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    """The rank is gone before anybody says so: its node hangs for some seconds, and then is taken away."""
    batch = runs.write_batch(tmp_path, tiny_base, max_attempts=1)

    def cut_off() -> None:
        node = cluster.nodes_with_ranks()[0]
        cluster.give_notice(node, 60)
        (rank,) = ranks_on(node)
        raylet(node).suspend()
        rank.kill()
        threading.Timer(4.0, cluster.lose, [node]).start()

    status = runs.drive(batch, runs.WhenTraining(cluster, cut_off))
    assert status.exit_code == 0, status.tasks
    store = runs.store_of(batch)
    interrupted, repaired = runs.attempts(store, "cat")
    assert interrupted["event"] == "Broke" and not interrupted["charged"], interrupted
    assert repaired["event"] == "Succeeded" and repaired["node"] != interrupted["node"]
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}


def test_a_gang_that_waits_for_room_starts_when_a_node_comes(
    cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path
) -> None:
    """No node is large enough until an autoscaler (here the test) has seen what is asked for."""
    batch = runs.write_batch(tmp_path, tiny_base, cpus_per_rank=4)
    waiting, added = [], []

    def autoscale(status: runs.RunStatus) -> None:
        if "Waiting for an autoscaler" in status.note and not added:
            waiting.append(status.note)
            added.append(cluster.grow(cpus=4))

    try:
        status = runs.drive(batch, autoscale)
        assert status.exit_code == 0, status.tasks
        assert waiting and not status.note
        (attempt,) = runs.attempts(runs.store_of(batch), "cat")
        assert added[0].node_ip_address in attempt["node"]
    finally:
        for node in added:
            cluster.lose(node)
