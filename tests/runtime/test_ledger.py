"""What is handed out next, and what a new driver knows of what earlier ones did."""

from pathlib import Path

import pytest
import short_runs as runs
from records import result_of

from advanchor.batch.file import read_batch
from advanchor.batch.plan import Task, plan
from advanchor.batch.spec import BatchSpec
from advanchor.cli.live import summary
from advanchor.rundir.store import Store
from advanchor.runtime.ledger import Attempt, Ledger
from advanchor.runtime.policy import Broke, Cancelled, Interrupted, Refused, Succeeded, TaskState

HERE = Attempt(gang=1, node="here", started_at=1000.0)
RESULT = {"scores": None, "scores_key": None, "seconds": {"erasing": 1.5, "evaluating": 0.5}}


@pytest.fixture
def planned(tiny_base: Path, tmp_path: Path) -> tuple[BatchSpec, list[Task], Store]:
    """Five concepts; the last has other settings."""
    batch = runs.write_batch(tmp_path, tiny_base, [*runs.NAMES, "elk"])
    read = read_batch(batch)
    spec, tasks = read.spec, plan(read.spec, read.concepts)
    tasks[-1] = tasks[-1].model_copy(update={"method": tasks[-1].method.model_copy(update={"steps": 7})})
    return spec, tasks, Store(spec.output)


Planned = tuple[BatchSpec, list[Task], Store]


def opened(planned: Planned) -> Ledger:
    ledger = Ledger(*planned)
    ledger.open()
    return ledger


def take(ledger: Ledger, size: int) -> list[str]:
    pack = ledger.next_pack(size)
    for task in pack:
        ledger.started(task, gang=1)
    return [task.concept.name for task in pack]


def named(ledger: Ledger, name: str) -> Task:
    return next(task for task in ledger.tasks.values() if task.concept.name == name)


def end(ledger: Ledger, name: str, event: Broke | Refused | Succeeded | Interrupted) -> None:
    ledger.ended(named(ledger, name), event, HERE, RESULT if isinstance(event, Succeeded) else None)


def test_only_tasks_with_the_same_settings_share_a_pack(planned: Planned) -> None:
    ledger = opened(planned)
    assert ledger.num_packs(3) == 3
    assert [take(ledger, 3) for _ in range(4)] == [["cat", "dog", "fox"], ["owl"], ["elk"], []]
    assert ledger.is_queue_empty and ledger.unfinished == 5


def test_the_last_packs_are_dealt_out_evenly(planned: Planned) -> None:
    """Two gangs, packs of up to four: one does not take four of the five tasks while the other waits."""
    ledger, sizes = opened(planned), []
    while not ledger.is_queue_empty:
        sizes.append(len(take(ledger, ledger.share(4, gangs=2))))
    assert sizes == [3, 1, 1]
    assert opened(planned).share(2, gangs=2) == 2 and opened(planned).share(4, gangs=1) == 4


def test_what_broke_in_a_pack_comes_back_alone(planned: Planned) -> None:
    ledger = opened(planned)
    for name in take(ledger, 2):
        end(ledger, name, Broke("died", packed=True))
    assert [take(ledger, 2) for _ in range(4)] == [["fox", "owl"], ["elk"], ["cat"], ["dog"]]
    assert ledger.states[named(ledger, "cat").id] == TaskState("running", 0, 1, alone=True, reason="died")


def test_a_pack_that_was_preempted_comes_back_together(planned: Planned) -> None:
    ledger = opened(planned)
    for name in take(ledger, 2):
        end(ledger, name, Broke("preempted", charged=False, packed=True))
    assert [take(ledger, 2) for _ in range(3)] == [["fox", "owl"], ["cat", "dog"], ["elk"]]


def test_a_task_cancelled_in_the_queue_is_not_handed_out(planned: Planned) -> None:
    ledger = opened(planned)
    ledger.happened(named(ledger, "dog"), Cancelled())
    assert take(ledger, 3) == ["cat", "fox", "owl"]
    assert ledger.unfinished == 4


def test_a_new_driver_knows_what_the_last_one_did(planned: Planned) -> None:
    """cat broke twice, dog is done, fox was refused, owl was cancelled by somebody, elk was interrupted."""
    _, tasks, store = planned
    first = opened(planned)
    take(first, 4)
    take(first, 4)
    for started_at in (1000.0, 1001.0):
        first.ended(named(first, "cat"), Broke("died"), Attempt(1, "here", started_at))
    store.publish(named(first, "dog"), {"delta.safetensors": b"dW"}, result_of(named(first, "dog")))
    end(first, "dog", Succeeded())
    end(first, "fox", Refused("too long"))
    store.cancel([named(first, "owl")])
    end(first, "elk", Interrupted())

    ledger = opened(planned)
    found = {task.concept.name: ledger.states[task.id] for task in tasks}
    assert found == {
        "cat": TaskState("queued", attempts=2, reason="died"),
        "dog": TaskState("done"),
        "fox": TaskState("failed", reason="too long"),
        "owl": TaskState("cancelled"),
        "elk": TaskState("queued"),
    }
    assert ledger.unfinished == 2 and ledger.rows[named(ledger, "dog").id].seconds == 2.0
    assert [take(ledger, 2) for _ in range(3)] == [["cat"], ["elk"], []]
    ledger.ended(named(ledger, "cat"), Broke("died"), Attempt(1, "here", 1002.0))
    assert ledger.states[named(ledger, "cat").id].status == "failed"  # the third of three
    assert opened(planned).unfinished == 1


def test_forgiven_attempts_are_not_remembered(planned: Planned) -> None:
    _, _, store = planned
    first = opened(planned)
    take(first, 1)
    end(first, "cat", Refused("too long"))
    assert opened(planned).unfinished == 4
    store.forgive([named(first, "cat")])
    assert opened(planned).unfinished == 5


def test_what_was_done_before_does_not_hasten_what_is_to_come(planned: Planned) -> None:
    _, tasks, store = planned
    for task in tasks[:3]:
        store.publish(task, {"delta.safetensors": b"dW"}, result_of(task))
    again = opened(planned)
    take(again, 1)
    end(again, "owl", Succeeded())
    take(again, 1)
    again.status.started_at, again.status.updated_at = 0.0, 60.0
    assert summary(again.status).endswith("60 s · about 60 s left")  # one of this driver's in 60 s, one to come


def test_what_is_not_asked_for_waits_for_a_later_driver(planned: Planned) -> None:
    """Unless the run directory knows what became of it."""
    first = opened(planned)
    end(first, take(first, 1)[0], Refused("too long"))
    ledger = Ledger(*planned, only={named(first, "dog").id})
    ledger.open()
    assert [row.status for row in ledger.status.tasks] == ["failed", "queued", "waiting", "waiting", "waiting"]
    assert ledger.unfinished == 1 and take(ledger, 5) == ["dog"]
    end(ledger, "dog", Succeeded())
    assert not ledger.unfinished and ledger.is_queue_empty
    assert ledger.status.exit_code == 1  # because of the one that failed
