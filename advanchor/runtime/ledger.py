"""What every task of a run is at, and which comes next. Every change goes through the policy and is recorded."""

import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advanchor.batch.plan import Task, scores_key
from advanchor.batch.spec import BatchSpec
from advanchor.rundir.status import RunStatus, TaskRow, new_row
from advanchor.rundir.store import Store
from advanchor.runtime.packing import pack_key
from advanchor.runtime.policy import FINAL, Broke, Cancelled, Event, Started, Succeeded, TaskState, policy, recalled


@dataclass(frozen=True)
class Attempt:
    """Where and when a task was tried."""

    gang: int
    node: str
    started_at: float  # seconds since 1970


class Ledger:
    def __init__(
        self, spec: BatchSpec, tasks: Sequence[Task], store: Store, only: Collection[str] | None = None
    ) -> None:
        """only: the ids of those tasks that this driver is to do; the others wait for a later one. None: all."""
        self.max_attempts, self.store = spec.resources.max_attempts, store
        self.tasks = {task.id: task for task in tasks}
        self.only = self.tasks.keys() if only is None else only
        self.states = {task.id: TaskState() for task in tasks}
        self.status = RunStatus(spec.base, spec.method.name, tasks=[new_row(task) for task in tasks])
        self.rows = {row.id: row for row in self.status.tasks}
        self.queues: dict[str, deque[Task]] = {}  # of tasks that may share a pack
        self.unfinished = len(self.tasks)
        self.evaluate = spec.evaluate

    def open(self, *, mend: bool = True) -> None:
        """What the run directory knows already: results, cancelled tasks, attempts of earlier drivers.

        Tasks with a result, and scores of this evaluation where there are to be scores, are not done again; those of
        which a file is missing or of another size are, if it is to `mend`.
        """
        results = {result["task"]: result for result in self.store.results() if result["task"] in self.tasks}
        for task_id, why in self.store.damaged_files(results.values()).items():
            del results[task_id]
            if mend:
                self.store.disown(self.tasks[task_id], why)
        attempts, cancelled = self.store.attempts(), self.store.cancelled()
        for task in self.tasks.values():
            result = results.get(task.id)
            if result and result["scores_key"] == scores_key(task.base_digest, self.evaluate):
                self.happened(task, Succeeded(), result)
            elif task.id in cancelled:
                self.happened(task, Cancelled())
            else:
                state = recalled(attempts.get(task.folder, ()), self.max_attempts)
                waits = state.status == "queued" and task.id not in self.only
                self.set_state(task, replace(state, status="waiting") if waits else state)
                self.enqueue(task)
        self.status.done_before = self.status.count("done")
        self.status.note = damage(self.store)

    # --- the queue

    def enqueue(self, task: Task) -> None:
        if self.states[task.id].status == "queued":
            key = pack_key(task) + (task.id if self.states[task.id].alone else "")
            self.queues.setdefault(key, deque()).append(task)

    @property
    def is_queue_empty(self) -> bool:
        return not self.queues

    def share(self, most: int, gangs: int) -> int:
        """How many tasks the next pack is to have: `most`, and near the end fewer, so that no gang is left without.

        Guided self-scheduling (Polychronopoulos and Kuck, 1987): an even share of what still waits.
        """
        waiting = sum(len(queue) for queue in self.queues.values())
        return max(1, min(most, -(-waiting // max(1, gangs))))

    def num_packs(self, size: int) -> int:
        """How many packs of up to `size` tasks wait."""
        return sum(-(-len(queue) // size) for queue in self.queues.values())

    def largest_group(self) -> list[Task]:
        """The waiting tasks of the settings that most of them have."""
        return list(max(self.queues.values(), key=len, default=()))

    def next_pack(self, size: int) -> list[Task]:
        """Up to `size` tasks with the same settings; one that a pack has broken with comes alone."""
        pack: list[Task] = []
        while self.queues and not pack:
            key, queue = next(iter(self.queues.items()))
            while queue and len(pack) < size:
                task = queue.popleft()
                if self.states[task.id].status == "queued":  # it may have been cancelled meanwhile
                    pack.append(task)
            if not queue:
                del self.queues[key]
        return pack

    # --- events

    def set_state(self, task: Task, state: TaskState) -> None:
        self.unfinished += (state.status not in FINAL) - (self.states[task.id].status not in FINAL)
        self.states[task.id] = state
        show_state(self.rows[task.id], state)

    def happened(self, task: Task, event: Event, result: dict[str, Any] | None = None) -> TaskState:
        self.set_state(task, policy(self.states[task.id], event, self.max_attempts))
        if result:
            row = self.rows[task.id]
            row.scores, row.seconds = result["scores"], sum(result["seconds"].values())
        return self.states[task.id]

    def started(self, task: Task, gang: int) -> None:
        self.happened(task, Started())
        self.rows[task.id].gang = gang

    def ended(
        self, task: Task, event: Event, attempt: Attempt, result: dict[str, Any] | None = None, details: str = ""
    ) -> None:
        """An attempt is over: record it, and put the task back into the queue if it is to be tried again."""
        state = self.happened(task, event, result)
        record = {
            "event": type(event).__name__,
            "reason": getattr(event, "reason", ""),
            "charged": isinstance(event, Broke) and event.charged,
            "packed": isinstance(event, Broke) and event.packed,
            "then": state.status,
            "gang": attempt.gang,
            "node": attempt.node,
            "started_at": attempt.started_at,
            "ended_at": time.time(),
            "details": details,
        }
        self.store.record_attempt(task, record)
        self.enqueue(task)


def damage(store: Store) -> str:
    """What was found damaged; empty if nothing was."""
    if not store.damaged:
        return ""
    name, why = next(iter(store.damaged.items()))
    return f"{len(store.damaged)} damaged files are left out or made anew, for example {name}: {why}"


def show_state(row: TaskRow, state: TaskState) -> None:
    row.status, row.attempts, row.reason = state.status, state.attempts, state.reason
    if state.status != "running":
        row.gang, row.phase = None, ""
