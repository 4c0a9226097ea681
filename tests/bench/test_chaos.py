"""The measurement of chaos is not blind: what would be wrong after a disturbed run, it says."""

import shutil
from pathlib import Path

import pytest
from records import result_of

from advanchor.batch.file import read_batch
from advanchor.batch.plan import Task, dump_plan, plan
from advanchor.bench import chaos
from advanchor.rundir.store import Store

Runs = tuple[Store, Store, list[Task]]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """A disturbed and an undisturbed run of three tasks, in order."""
    calm = Store(str(tmp_path / "calm"))
    read = read_batch(chaos.write_batch(tmp_path, Path(calm.root), 3))
    spec, tasks = read.spec, plan(read.spec, read.concepts)
    calm.keep_plan("", (), dump_plan(spec, tasks))
    for task in tasks:
        calm.publish(task, {"delta.safetensors": task.id.encode()}, result_of(task))
        calm.record_attempt(task, {"event": "Succeeded", "started_at": 1000.0, "gang": 1})
    shutil.copytree(calm.root, tmp_path / "rough")
    return Store(str(tmp_path / "rough")), calm, tasks


def test_nothing_is_found_where_nothing_is_wrong(runs: Runs) -> None:
    rough, calm, _ = runs
    assert chaos.problems(rough, calm) == []


def test_a_lost_result_is_found(runs: Runs) -> None:
    rough, calm, tasks = runs
    rough.delete(rough.task_path(tasks[1], "result.json"))
    assert chaos.problems(rough, calm) == ["concept 2 has no result", "2 results of 3 tasks"]


def test_other_bytes_are_found(runs: Runs) -> None:
    """Of a whole file, which is then beside the first one, and of a damaged one."""
    rough, calm, tasks = runs
    rough.publish(tasks[0], {"delta.safetensors": b"other"}, result_of(tasks[0]))
    damaged = rough.find("tasks", tasks[2].folder, "delta-*")[0]
    rough.write(damaged, b"damaged")
    assert chaos.problems(rough, calm) == [
        "concept 1 has another delta than in the undisturbed run",
        "concept 1 has more than one delta",
        f"{damaged} is missing or damaged (sha256 differs)",
    ]


def test_what_was_done_twice_is_found(runs: Runs) -> None:
    rough, calm, tasks = runs
    rough.record_attempt(tasks[0], {"event": "Succeeded", "started_at": 1001.0, "gang": 1})
    assert chaos.problems(rough, calm) == ["concept 1 was done more than once"]


def test_kills_are_decided_by_the_seed_and_spread_over_the_run() -> None:
    kills = chaos.drawn(50, 200, seed=0)
    assert kills == chaos.drawn(50, 200, seed=0) != chaos.drawn(50, 200, seed=1)
    assert {kill.sort for kill in kills} == {"rank", "node", "driver"}
    after = [kill.after for kill in kills]
    assert after == sorted(after) and after[0] <= 3 and 190 <= after[-1] < 199


def test_damage_is_decided_by_the_seed_and_found(runs: Runs) -> None:
    rough, calm, tasks = runs
    blows = chaos.drawn_damage(20, 3, seed=0)
    assert blows == chaos.drawn_damage(20, 3, seed=0) != chaos.drawn_damage(20, 3, seed=1)
    assert sum(chaos.spoil(Path(rough.root), blow.choice) for blow in blows) == 20
    found = chaos.problems(rough, calm, damaged=True)
    for task in tasks:
        store = Store(rough.root)
        result = store.result(task)
        whole = result is not None and not store.changed_files([result])
        assert whole == (not any(task.concept.name in text or task.folder in text for text in found))
    assert found


def test_a_task_may_be_done_again_where_files_were_damaged(runs: Runs) -> None:
    rough, calm, tasks = runs
    rough.record_attempt(tasks[0], {"event": "Succeeded", "started_at": 1001.0, "gang": 1})
    assert chaos.problems(rough, calm, damaged=True) == []
