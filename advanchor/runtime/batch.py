"""The driver: hands tasks to gangs, looks at what comes back, and decides by the policy."""

import contextlib
import logging
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from advanchor.plan import Task, scores_key
from advanchor.runtime.gang import Gang, TaskCancelled
from advanchor.runtime.policy import (
    FINAL,
    Broke,
    Cancelled,
    Event,
    Interrupted,
    Refused,
    Started,
    Succeeded,
    TaskState,
    policy,
)
from advanchor.runtime.ray_cluster import ClusterError, gang_shape, number_of_gangs
from advanchor.runtime.status import STATUS_FILE, RunStatus, View, new_row, show_state
from advanchor.runtime.store import Store
from advanchor.runtime.worker import Refusal, WorkerSettings
from advanchor.spec import BatchSpec

log = logging.getLogger(__name__)

TICK_S = 0.2  # how long one ray.wait may take
SNAPSHOT_S = 2.0  # how often status.json is written
START_DEADLINE_S = 600.0  # for a gang to load its model once its resources are there
GRACE_S = 10.0  # for attempts to end by themselves after Ctrl-C
MAX_BROKEN_STARTS = 3  # gangs in a row that die before they are ready


def worker_settings(spec: BatchSpec, tasks: Sequence[Task], store: Store) -> WorkerSettings:
    return WorkerSettings(
        store_url=store.url,
        model=spec.model,
        trained_weights=tasks[0].method.trained_weights,
        evaluate=spec.evaluate,
        stage=spec.deepspeed.stage,
        precision=spec.deepspeed.precision,
        offload=spec.deepspeed.offload,
    )


class Run:
    """One run of a batch. Ray is connected already; `view` is shown every snapshot."""

    def __init__(self, spec: BatchSpec, tasks: Sequence[Task], store: Store, view: View) -> None:
        self.spec, self.store, self.view = spec, store, view
        self.tasks = {task.id: task for task in tasks}
        self.states = {task.id: TaskState() for task in tasks}
        self.status = RunStatus(spec.model, spec.method.name, tasks=[new_row(task) for task in tasks])
        self.rows = {row.id: row for row in self.status.tasks}
        self.queue: deque[Task] = deque()
        self.gangs: list[Gang] = []
        self.gang_count = 0
        self.broken_starts = 0
        self.interrupted = False
        self.last_snapshot = 0.0

    def run(self) -> RunStatus:
        """Until every task is final, or the user interrupts. Raises ClusterError."""
        self.skip_done()
        try:
            if self.queue:
                shape = gang_shape(self.spec.resources, ray.cluster_resources())
                wanted = number_of_gangs(self.spec.resources, shape, len(self.queue))
                settings = worker_settings(self.spec, list(self.tasks.values()), self.store)
                self.status.wanted_gangs = wanted
                self.status.state = "running"
                with self.interruptible():
                    while not self.interrupted and not self.is_finished():
                        while len(self.gangs) < min(wanted, self.unfinished()):
                            self.gang_count += 1
                            self.gangs.append(Gang(self.gang_count, shape, settings))
                        self.hand_out()
                        self.collect()
                        self.snapshot()
                    self.wind_down()
            self.status.state = "interrupted" if self.interrupted else "finished"
        finally:
            for gang in self.gangs:
                gang.close()
            self.snapshot(force=True)
        return self.status

    def skip_done(self) -> None:
        """Tasks with a result, and scores of this evaluation where there are to be scores, are not done again."""
        for task in self.tasks.values():
            result = self.store.result(task)
            if result and result["scores_key"] == scores_key(task.base, task.base_digest, self.spec.evaluate):
                self.happened(task, Succeeded())
                self.finish_row(task, result)
            else:
                self.queue.append(task)

    def unfinished(self) -> int:
        return sum(state.status not in FINAL for state in self.states.values())

    def is_finished(self) -> bool:
        return not self.queue and all(gang.task is None for gang in self.gangs)

    def happened(self, task: Task, event: Event) -> TaskState:
        state = policy(self.states[task.id], event, self.spec.resources.max_attempts)
        self.states[task.id] = state
        show_state(self.rows[task.id], state)
        return state

    def finish_row(self, task: Task, result: dict[str, Any]) -> None:
        row = self.rows[task.id]
        row.scores = result["scores"]
        row.seconds = sum(result["seconds"].values())

    def hand_out(self) -> None:
        for gang in self.gangs:
            if gang.is_idle and self.queue:
                task = self.queue.popleft()
                self.happened(task, Started())
                gang.start(task)

    def collect(self) -> None:
        """Look at what has come back, one reference at a time: the first dead rank is seen while others still hang."""
        owners = {ref: gang for gang in self.gangs for ref in gang.pending}
        if owners:
            ready, _ = ray.wait(list(owners), num_returns=1, timeout=TICK_S)
            for ref in ready:
                self.take(owners[ref], ref)
        else:
            time.sleep(TICK_S)
        for gang in list(self.gangs):
            limit = self.spec.resources.deadline_s if gang.task else START_DEADLINE_S
            if gang.pending and time.time() - gang.started_at > limit and self.has_resources(gang):
                self.lose(gang, Broke(f"no result within {limit:g} s"))

    def has_resources(self, gang: Gang) -> bool:
        """A gang that still waits for its place in the cluster is not late: its time starts when it has one."""
        if gang.is_ready or gang.group.wait(timeout_seconds=0):
            return True
        gang.started_at = time.time()
        return False

    def take(self, gang: Gang, ref: ray.ObjectRef) -> None:
        """One rank has answered."""
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            self.fail(gang, error)
        except RayError as error:
            preempted = isinstance(error, ActorDiedError) and bool(getattr(error, "preempted", False))
            self.lose(gang, Broke(f"{type(error).__name__}: {first_line(error)}", charged=not preempted))
        else:
            gang.pending.remove(ref)
            if gang.task and ref == gang.result_ref:
                self.finish_row(gang.task, answer)
            if not gang.pending:
                self.complete(gang)

    def complete(self, gang: Gang) -> None:
        """All ranks have answered: the gang is ready, or its task is done."""
        if gang.task is None:
            gang.is_ready, self.broken_starts = True, 0
            self.status.gangs = sum(gang.is_ready for gang in self.gangs)
        else:
            self.happened(gang.task, Succeeded())
            self.record(gang, "done")
            gang.task = None

    def fail(self, gang: Gang, error: RayTaskError) -> None:
        """An exception inside a rank."""
        cause = error.cause
        if isinstance(cause, Refusal):
            event: Event = Refused(str(cause))
        elif isinstance(cause, TaskCancelled):
            event = Interrupted() if self.interrupted else Cancelled()
        else:
            event = Broke(f"{type(cause).__name__}: {first_line(cause)}")
        log.debug("gang %d: %s", gang.number, error)
        unharmed = isinstance(cause, Refusal | TaskCancelled) and len(gang.ranks) == 1
        self.lose(gang, event, keep=unharmed)

    def lose(self, gang: Gang, event: Event, *, keep: bool = False) -> None:
        """End a gang's attempt, and the gang with it unless its state is known to be sound."""
        task = gang.task
        if task:
            state = self.happened(task, event)
            self.record(gang, state.status, state.reason)
            if state.status == "queued" and not self.interrupted:
                self.queue.append(task)
        else:
            self.broken_starts += 1
            if self.broken_starts >= MAX_BROKEN_STARTS:
                reason = getattr(event, "reason", "nothing")
                raise ClusterError(f"{MAX_BROKEN_STARTS} gangs in a row could not start; the last one said: {reason}")
        if keep:
            gang.task, gang.pending = None, []
        else:
            gang.close()
            self.gangs.remove(gang)
        self.status.gangs = sum(gang.is_ready for gang in self.gangs)

    def record(self, gang: Gang, outcome: str, reason: str = "") -> None:
        assert gang.task
        record = {
            "attempt": self.states[gang.task.id].attempts,
            "gang": gang.number,
            "started_at": round(gang.started_at, 3),
            "ended_at": round(time.time(), 3),
            "outcome": outcome,
            "reason": reason,
        }
        self.store.record_attempt(gang.task, record)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run in an orderly way: results are kept, everything else stays resumable."""

        def interrupt(number: int, frame: object) -> None:
            self.interrupted = True

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wind_down(self) -> None:
        """After an interruption: ask the attempts in flight to stop, wait a little, give up on the rest."""
        for gang in self.gangs:
            if gang.task:
                gang.cancel()
        patience = time.time() + GRACE_S
        while any(gang.task for gang in self.gangs) and time.time() < patience:
            self.collect()
        for gang in self.gangs:
            if gang.task:
                self.happened(gang.task, Interrupted())
                self.record(gang, "interrupted")

    def snapshot(self, *, force: bool = False) -> None:
        for gang in self.gangs:
            if gang.task:
                gang.poll_progress()
                row, progress = self.rows[gang.task.id], gang.progress
                row.gang, row.seconds = gang.number, time.time() - gang.started_at
                row.phase, row.step, row.total, row.loss = progress.phase, progress.step, progress.total, progress.loss
        self.status.updated_at = time.time()
        self.view(self.status)
        if force or time.time() - self.last_snapshot > SNAPSHOT_S:
            self.last_snapshot = time.time()
            self.store.write_json(STATUS_FILE, self.status.to_json())


def first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
