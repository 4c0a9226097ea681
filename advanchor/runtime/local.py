"""A batch in this process, one concept after another, with plain PyTorch: neither Ray nor DeepSpeed is needed."""

import time
from collections.abc import Sequence

from advanchor.plan import Task
from advanchor.runtime.policy import Broke, Refused, TaskState, policy
from advanchor.runtime.status import STATUS_FILE, RunStatus, TaskRow, View, new_row, show_state
from advanchor.runtime.store import Store
from advanchor.runtime.worker import Refusal, Worker, WorkerSettings
from advanchor.spec import BatchSpec


def run_locally(spec: BatchSpec, tasks: Sequence[Task], store: Store, view: View) -> RunStatus:
    """As batch.Run.run, without gangs; a task that breaks is not tried again here."""
    status = RunStatus(spec.model, spec.method.name, state="running", tasks=[new_row(task) for task in tasks])
    settings = WorkerSettings(
        store.url, spec.model, tasks[0].method.trained_weights, spec.evaluate, 0, spec.deepspeed.precision, "none"
    )
    worker = Worker(settings)
    try:
        for task, row in zip(tasks, status.tasks, strict=True):

            def report(phase: str, step: int, total: int, loss: float, row: TaskRow = row) -> None:
                row.phase, row.step, row.total, row.loss = phase, step, total, loss
                view(status)

            started, row.status = time.time(), "running"
            try:
                result = worker.erase(task, report)
            except Refusal as error:
                show_state(row, policy(TaskState("running"), Refused(str(error)), 1))
            except (RuntimeError, OSError) as error:
                show_state(row, policy(TaskState("running"), Broke(str(error)), 1))
            else:
                row.status, row.scores = "done", result["scores"]
            row.seconds = time.time() - started
            view(status)
        status.state = "finished"
    except KeyboardInterrupt:
        status.state = "interrupted"
    status.updated_at = time.time()
    store.write_json(STATUS_FILE, status.to_json())
    return status
