"""A batch in this process, one concept after another, with plain PyTorch: neither Ray nor DeepSpeed is needed."""

import platform
import time
import traceback
from collections.abc import Sequence

from advanchor.plan import Task
from advanchor.runtime.ledger import Attempt, Ledger
from advanchor.runtime.policy import Broke, Event, Interrupted, Refused, Succeeded
from advanchor.runtime.status import STATUS_FILE, RunStatus, View
from advanchor.runtime.store import Store, StoreError
from advanchor.runtime.worker import Worker, WorkerSettings
from advanchor.spec import BatchSpec


def run_locally(spec: BatchSpec, tasks: Sequence[Task], store: Store, view: View) -> RunStatus:
    """As batch.Run.run, with one gang that is this process; a process that dies takes the run with it."""
    ledger = Ledger(spec, tasks, store)
    status = ledger.status
    try:
        ledger.open()
        if ledger.unfinished:
            status.state, status.gangs, status.wanted_gangs = "running", 1, 1
            worker = Worker(WorkerSettings.of(spec, tasks, on_gpu=spec.resources.device != "cpu"))
            while pack := ledger.next_pack(1):
                for task in pack:
                    attempt(worker, ledger, task, view)
                store.write_json(STATUS_FILE, status.to_json())
        status.state = "finished"
    except KeyboardInterrupt:
        status.state = "interrupted"
    except StoreError as error:
        status.state, status.note = "stopped", str(error)
        return status
    status.updated_at = time.time()
    store.write_json(STATUS_FILE, status.to_json())
    return status


def attempt(worker: Worker, ledger: Ledger, task: Task, view: View) -> None:
    row, status = ledger.rows[task.id], ledger.status
    where = Attempt(gang=1, node=platform.node(), started_at=time.time())

    def report(phase: str, step: int, total: int, loss: float) -> None:
        row.phase, row.step, row.total, row.loss = phase, step, total, loss
        row.seconds, status.updated_at = time.time() - where.started_at, time.time()
        view(status)

    ledger.started(task, where.gang)
    result, details = None, ""
    try:
        (outcome,) = worker.erase([task], report)
        result = outcome.result
        event: Event = Succeeded() if result else Refused(outcome.refused)
    except StoreError:
        raise
    except KeyboardInterrupt:
        ledger.ended(task, Interrupted(), where)
        raise
    except Exception as error:
        event, details = Broke(f"{type(error).__name__}: {error}"), traceback.format_exc()
    ledger.ended(task, event, where, result, details)
    view(status)
