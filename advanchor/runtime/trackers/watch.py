"""What trackers are told of a run, and how they are kept from harming it."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from advanchor.batch.plan import Task, slug
from advanchor.batch.spec import BatchSpec
from advanchor.rundir.records import SCORES
from advanchor.rundir.status import RunStatus, TaskRow, View
from advanchor.rundir.store import Store, StoreError

CLOSE_S = 30.0  # for what still waits to be written when the run is over


class Tracker(Protocol):
    """Follows one run. Its methods are called one after another in a thread of its own, and may raise anything."""

    name: str

    def start(self, run: str, batch: Mapping[str, Any]) -> None:
        """run: the run directory; batch: all settings, as JSON."""
        ...

    def loss(self, concept: str, step: int, loss: float) -> None:
        """The student's; concept: a name that is safe in any file."""
        ...

    def done(self, concept: str, scores: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
        """pictures: PNGs, before above after, "erased" of the concept and "retained" of others."""
        ...

    def failed(self, concept: str, reason: str) -> None: ...

    def end(self, state: str, counts: Mapping[str, int]) -> None: ...


@dataclass
class Guarded:
    """A tracker in a thread of its own: one that fails, or hangs, costs one line and is not asked again."""

    tracker: Tracker
    warn: Callable[[str], None]
    waiting: "queue.SimpleQueue[Callable[[], None] | None]" = field(default_factory=queue.SimpleQueue)
    broken: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.work, name=f"tracker {self.tracker.name}", daemon=True)
        self.thread.start()

    def work(self) -> None:
        while call := self.waiting.get():
            if not self.broken:
                try:
                    call()
                except Exception as error:
                    self.give_up(first_line(error))

    def give_up(self, why: str) -> None:
        if not self.broken:
            self.broken = True
            self.warn(f"{self.tracker.name} is not told of this run any more: {why}")

    def close(self) -> None:
        self.waiting.put(None)
        self.thread.join(CLOSE_S)
        if self.thread.is_alive():
            self.give_up(f"it has not answered for {CLOSE_S:.0f} s")


class Watch:
    """Looks at every snapshot of a run, and tells trackers what has happened since the last one.

    The first snapshot is what earlier drivers have left; nobody is told of that.
    """

    def __init__(
        self,
        spec: BatchSpec,
        tasks: Sequence[Task],
        store: Store,
        trackers: Sequence[Tracker],
        warn: Callable[[str], None],
    ) -> None:
        self.store = Store(store.url, patience_s=0)  # of its own: what it finds damaged is not the run's business
        self.tasks = {task.id: task for task in tasks}
        self.names = safe_names(tasks)
        self.seen: dict[str, str] = {}
        self.steps: dict[str, int] = {}
        self.last: RunStatus | None = None
        self.guarded = [Guarded(tracker, warn) for tracker in trackers]
        batch = spec.model_dump(mode="json", by_alias=True)
        self.tell(lambda tracker: tracker.start(store.url, batch))

    def tell(self, call: Callable[[Tracker], None]) -> None:
        for each in self.guarded:
            each.waiting.put(lambda tracker=each.tracker: call(tracker))

    def around(self, view: View) -> View:
        """A view that also tells the trackers."""

        def both(status: RunStatus) -> None:
            view(status)
            self.look(status)

        return both

    def look(self, status: RunStatus) -> None:
        for row in status.tasks:
            if self.last and row.status != self.seen.get(row.id):
                self.changed(row)
            self.seen[row.id] = row.status
            if row.status == "running" and row.phase == "student" and row.step != self.steps.get(row.id):
                self.steps[row.id] = row.step
                self.tell_loss(self.names[row.id], row.step, row.loss)
        self.last = status

    def tell_loss(self, name: str, step: int, loss: float | None) -> None:
        if loss is not None:
            self.tell(lambda tracker: tracker.loss(name, step, loss))

    def changed(self, row: TaskRow) -> None:
        name, reason = self.names[row.id], row.reason
        if row.status == "done":
            task, scores = self.tasks[row.id], numbers(row.scores)
            self.tell(lambda tracker: tracker.done(name, scores, self.pictures(task)))
        elif row.status == "failed":
            self.tell(lambda tracker: tracker.failed(name, reason))

    def pictures(self, task: Task) -> dict[str, bytes]:
        with suppress(StoreError):
            result = self.store.result(task)
            files = result["files"] if result else {}
            stems = [stem for stem, entry in files.items() if entry["name"].endswith(".png")]
            return {stem: self.store.read_file(task, stem) for stem in stems}
        return {}

    def close(self) -> None:
        """Tell the end, and wait a little until all is written."""
        if self.last:
            self.look(self.last)
        state = self.last.state if self.last else "stopped"
        counts = Counter(row.status for row in self.last.tasks) if self.last else Counter()
        self.tell(lambda tracker: tracker.end(state, counts))
        for each in self.guarded:
            each.close()


def safe_names(tasks: Sequence[Task]) -> dict[str, str]:
    """By task: letters, digits and dashes of its concept's name; with the task's id where two are called alike."""
    times = Counter(slug(task.concept.name) for task in tasks)
    return {task.id: own if times[own := slug(task.concept.name)] == 1 else task.folder for task in tasks}


def numbers(scores: Mapping[str, Any] | None) -> dict[str, float]:
    return {name: float(value) for name in SCORES if (value := (scores or {}).get(name)) is not None}


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
