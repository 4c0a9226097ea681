"""A batch in this process, one concept after another, with plain PyTorch: neither Ray nor DeepSpeed is needed."""

import platform
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import replace

from advanchor.batch.plan import Task
from advanchor.batch.spec import BatchSpec
from advanchor.rundir.status import STATUS_FILE, RunStatus, View
from advanchor.rundir.store import Store, StoreError
from advanchor.runtime.ledger import Attempt, Ledger
from advanchor.runtime.policy import Event, Interrupted, Refused, Succeeded, broken
from advanchor.runtime.worker import Worker, WorkerSettings, measured_pack_size


def run_locally(
    spec: BatchSpec, tasks: Sequence[Task], store: Store, view: View, only: Collection[str] | None = None
) -> RunStatus:
    """As driver.Run.run, with one gang that is this process; a process that dies takes the run with it."""
    ledger = Ledger(spec, tasks, store, only)
    status = ledger.status
    try:
        ledger.open()
        view(status)
        if ledger.unfinished:
            status.state, status.gangs, status.wanted_gangs = "running", 1, 1
            settings = WorkerSettings.of(spec, tasks, on_gpu=spec.resources.device != "cpu")
            group, size = ledger.largest_group(), spec.resources.concepts_per_pack
            if size == "auto":
                size = measured_pack_size(settings, group[0].method, len(group), sharers=1)
            worker = Worker(replace(settings, slots=size))
            while pack := ledger.next_pack(size):
                attempt(worker, ledger, pack, view)
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


def attempt(worker: Worker, ledger: Ledger, pack: Sequence[Task], view: View) -> None:
    """One pack: what it breaks with is tried again alone."""
    where, status = Attempt(gang=1, node=platform.node(), started_at=time.time()), ledger.status
    rows = [ledger.rows[task.id] for task in pack]

    def report(phase: str, step: int, total: int, loss: float) -> None:
        status.updated_at = time.time()
        for row in rows:
            row.phase, row.step, row.total, row.loss = phase, step, total, loss
            row.seconds = status.updated_at - where.started_at
        view(status)

    for task in pack:
        ledger.started(task, where.gang)
    try:
        for task, outcome in zip(pack, worker.erase(pack, report), strict=True):
            event: Event = Succeeded() if outcome.result else Refused(outcome.refused)
            ledger.ended(task, event, where, outcome.result)
    except StoreError:
        raise
    except KeyboardInterrupt:
        for task in pack:
            ledger.ended(task, Interrupted(), where)
        raise
    except Exception as error:
        broke = broken(error, str(error), packed=len(pack) > 1)
        for task in pack:
            ledger.ended(task, broke, where, details=traceback.format_exc())
    view(status)
