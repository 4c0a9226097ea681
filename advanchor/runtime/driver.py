"""The driver: hands packs of tasks to gangs and looks at what comes back."""

import contextlib
import logging
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

from advanchor.batch.plan import Task
from advanchor.batch.spec import BatchSpec
from advanchor.rundir.status import STALE_S, STATUS_FILE, RunStatus, View
from advanchor.rundir.store import Store, StoreError
from advanchor.runtime.errors import ClusterError
from advanchor.runtime.gang import Gang, TaskCancelled, measure_pack_size
from advanchor.runtime.ledger import Attempt, Ledger
from advanchor.runtime.policy import Broke, Cancelled, Event, Interrupted, Refused, Succeeded, broken
from advanchor.runtime.ray_cluster import check_room, gang_shape, number_of_gangs
from advanchor.runtime.worker import Outcome, WorkerSettings

log = logging.getLogger(__name__)

TICK_S = 0.2  # how long one ray.wait may take
VIEW_S = 0.25  # how often ranks are asked for their progress and the run is shown, ...
VIEW_SHARE = 0.1  # ... and what share of the driver's time that may take with very many gangs
SNAPSHOT_S = 2.0  # how often status.json is written and the cluster looked at, ...
SNAPSHOT_SHARE = 0.02  # ... and what share of the driver's time that may take in runs of very many tasks, ...
SNAPSHOT_MAX_S = STALE_S / 2  # ... as long as nobody takes the driver for dead
START_DEADLINE_S = 600.0  # for a gang to load its model once it has its place
GRACE_S = 10.0  # for attempts to end by themselves after Ctrl-C
MAX_BROKEN_STARTS = 5  # gangs in a row that die before they are ready


class Run:
    """One run of a batch, or of some of its tasks. Ray is connected already; `view` is shown what happens."""

    def __init__(
        self, spec: BatchSpec, tasks: Sequence[Task], store: Store, view: View, only: Collection[str] | None = None
    ) -> None:
        self.spec, self.store, self.view = spec, store, view
        self.ledger = Ledger(spec, tasks, store, only)
        self.status = self.ledger.status
        self.shape = gang_shape(spec.resources, ray.cluster_resources())
        self.settings = WorkerSettings.of(spec, tasks, on_gpu="GPU" in self.shape.bundle)
        self.pack_size = 1
        self.gangs: list[Gang] = []
        self.gang_count = 0
        self.broken_starts = 0
        self.interrupted = False
        self.next_view = self.next_snapshot = 0.0

    def run(self) -> RunStatus:
        """Until every task is final, or the user interrupts, or storage fails for good. Raises ClusterError."""
        try:
            self.ledger.open()
            self.view(self.status)
            if self.ledger.unfinished:
                self.status.state = "running"
                self.status.note = check_room(self.spec.resources, self.shape)
                with self.interruptible():
                    self.pack_size = self.choose_pack_size()
                    self.settings = replace(self.settings, slots=self.pack_size)
                    while not self.interrupted and self.ledger.unfinished:
                        self.match_gangs()
                        self.hand_out()
                        self.collect()
                        self.snapshot()
                    self.wind_down()
            self.status.state = "interrupted" if self.interrupted else "finished"
        except StoreError as error:
            self.status.state, self.status.note = "stopped", str(error)
        finally:
            for gang in self.gangs:
                gang.close()
            with contextlib.suppress(StoreError):
                self.snapshot(force=True)
        return self.status

    # --- gangs

    def choose_pack_size(self) -> int:
        """As the batch says, or as measured; never so many that gangs would have nothing to do."""
        asked = self.spec.resources.concepts_per_pack
        if asked != "auto":
            return asked
        gangs = max(1, number_of_gangs(self.spec.resources, self.shape))
        group = self.ledger.largest_group()
        share = group[: -(-len(group) // gangs)]
        if len(share) < 2:
            return 1
        answer = measure_pack_size(self.shape, self.settings, share, gangs)
        while not self.interrupted and not ray.wait([answer], timeout=TICK_S)[0]:
            self.snapshot()
        return 1 if self.interrupted else ray.get(answer)

    @property
    def share(self) -> int:
        return self.ledger.share(self.pack_size, self.status.wanted_gangs)

    def match_gangs(self) -> None:
        """As many gangs as there is room and work for; idle ones go when the queue is empty."""
        if time.time() >= self.next_snapshot:
            self.status.wanted_gangs = number_of_gangs(self.spec.resources, self.shape)
        busy = sum(bool(gang.pack) for gang in self.gangs)
        while len(self.gangs) < min(self.status.wanted_gangs, busy + self.ledger.num_packs(self.share)):
            self.gang_count += 1
            self.gangs.append(Gang(self.gang_count, self.shape, self.settings))
        if self.ledger.is_queue_empty:
            for gang in [gang for gang in self.gangs if gang.is_idle or not gang.is_ready][1:]:
                self.dismiss(gang)  # one stays, for what may have to be tried again

    def dismiss(self, gang: Gang) -> None:
        gang.close()
        self.gangs.remove(gang)

    def hand_out(self) -> None:
        for gang in self.gangs:
            if gang.is_idle and not self.ledger.is_queue_empty:
                pack = self.ledger.next_pack(self.share)
                if pack:
                    gang.start(pack)
                for task in pack:
                    self.ledger.started(task, gang.number)

    # --- what comes back

    def collect(self) -> None:
        """Look at every answer that is there, without waiting for the rest: a dead rank is seen while others hang."""
        owners = {ref: gang for gang in self.gangs for ref in gang.pending}
        if owners:
            if ray.wait(list(owners), num_returns=1, timeout=TICK_S)[0]:
                ready, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
                for ref in ready:
                    if owners[ref] in self.gangs and ref in owners[ref].pending:  # the gang may be gone by now
                        self.take(owners[ref], ref)
        else:
            time.sleep(TICK_S)
        for gang in list(self.gangs):
            limit = self.spec.resources.deadline_s * len(gang.pack) if gang.pack else START_DEADLINE_S
            if gang.pending and gang.has_place() and time.time() - gang.started_at > limit:
                self.lose(gang, Broke(f"no result within {limit:g} s", packed=len(gang.pack) > 1))

    def take(self, gang: Gang, ref: Any) -> None:
        """One rank has answered."""
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            self.fail(gang, error)
        except ActorUnavailableError:
            gang.ask_again(ref)
        except RayError as error:
            preempted = isinstance(error, ActorDiedError) and bool(getattr(error, "preempted", False))
            reason = f"{type(error).__name__}: {first_line(error)}"
            self.lose(gang, Broke(reason, charged=not preempted, packed=len(gang.pack) > 1), details=str(error))
        else:
            if ref == gang.cut_off:
                self.lose(gang, Broke("a rank lives, but its answer was cut off", packed=len(gang.pack) > 1))
                return
            del gang.pending[ref]
            if ref == gang.result_ref:
                gang.answer = answer
            if not gang.pending:
                self.complete(gang)

    def complete(self, gang: Gang) -> None:
        """All ranks have answered: the gang is ready, or its attempt is over."""
        if gang.pack:
            self.settle(gang, gang.answer)
            return
        gang.is_ready, gang.node, self.status.note = True, gang.answer, ""
        self.broken_starts = 0
        if not self.store.take_probe(gang.probe):
            raise ClusterError(
                f"node {gang.node} does not see the run directory {self.store.url}: what it wrote there is not here. "
                "output must be a folder that all nodes share, or a URL"
            )

    def settle(self, gang: Gang, outcomes: Sequence[Outcome]) -> None:
        """Every task of a pack has its own outcome."""
        tasks, gang.pack = {task.id: task for task in gang.pack}, ()
        for outcome in outcomes:
            event: Event = Succeeded() if outcome.result else Refused(outcome.refused)
            self.ledger.ended(tasks[outcome.task], event, attempt_of(gang), outcome.result)

    def fail(self, gang: Gang, error: RayTaskError) -> None:
        """An exception inside a rank."""
        cause = error.cause
        if isinstance(cause, StoreError):
            self.lose(gang, Interrupted(), details=str(error))
            raise StoreError(str(cause)) from error
        if isinstance(cause, TaskCancelled):
            self.lose(gang, Interrupted(), keep=len(gang.ranks) == 1)
        else:
            event = broken(cause, first_line(cause), packed=len(gang.pack) > 1)
            self.lose(gang, event, details=str(error))

    def lose(self, gang: Gang, event: Event, *, keep: bool = False, details: str = "") -> None:
        """End a gang's attempt, and the gang with it unless its state is known to be sound."""
        pack, gang.pack = gang.pack, ()
        if keep:
            gang.pending = {}
        else:
            self.dismiss(gang)
        if not pack and not keep:
            self.broken_starts += 1
            if self.broken_starts >= MAX_BROKEN_STARTS:
                reason = getattr(event, "reason", "nothing")
                raise ClusterError(f"{MAX_BROKEN_STARTS} gangs in a row could not start; the last one said: {reason}")
        cancelled = self.store.cancelled() if pack else set()
        for task in pack:
            result = self.store.result(task) if len(pack) > 1 else None  # published before the pack broke
            own = Succeeded() if result else Cancelled() if task.id in cancelled else event
            self.ledger.ended(task, own, attempt_of(gang), result, details)

    # --- stopping

    def obey(self) -> None:
        """Cancel what was asked for, from whatever machine, since the last look."""
        asked = self.store.cancelled()
        running = {task.id: gang for gang in self.gangs for task in gang.pack}
        for task_id in asked & self.ledger.tasks.keys():
            if task_id in running:
                running[task_id].cancel()
            elif self.ledger.states[task_id].status == "queued":
                self.ledger.happened(self.ledger.tasks[task_id], Cancelled())

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
            if gang.pack:
                gang.cancel()
        patience = time.time() + GRACE_S
        while any(gang.pack for gang in self.gangs) and time.time() < patience:
            self.collect()
        for gang in list(self.gangs):
            if gang.pack:
                self.lose(gang, Interrupted())

    # --- being seen

    def snapshot(self, *, force: bool = False) -> None:
        now = time.time()
        if force or now >= self.next_view:
            self.status.updated_at = now
            self.status.gangs = sum(gang.is_ready for gang in self.gangs)
            for gang in self.gangs:
                if gang.pack:
                    gang.poll_progress()
                    show_progress(gang, self.ledger.rows, now)
            self.next_view = now + spaced(now, VIEW_S, VIEW_SHARE)
            self.view(self.status)
        now = time.time()
        if force or now >= self.next_snapshot:
            self.obey()
            self.store.write_json(STATUS_FILE, self.status.to_json())
            self.next_snapshot = now + min(spaced(now, SNAPSHOT_S, SNAPSHOT_SHARE), SNAPSHOT_MAX_S)


def show_progress(gang: Gang, rows: Mapping[str, Any], now: float) -> None:
    progress = gang.progress
    for task in gang.pack:
        row = rows[task.id]
        row.seconds = now - gang.started_at
        row.phase, row.step, row.total, row.loss = progress.phase, progress.step, progress.total, progress.loss


def spaced(since: float, least: float, share: float) -> float:
    """Seconds to wait before repeating what took from `since` to now, so that it takes at most `share` of the time."""
    return max(least, (time.time() - since) / share)


def attempt_of(gang: Gang) -> Attempt:
    return Attempt(gang.number, gang.node, gang.started_at)


def first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
