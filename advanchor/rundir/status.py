"""The snapshot of a run that anyone can read, with or without its driver: status.json."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from advanchor.batch.plan import Task
from advanchor.rundir.records import MAX_TIME, Scores
from advanchor.rundir.storage import DamagedError, Files

View = Callable[["RunStatus"], None]  # is shown every snapshot
RunState = Literal["starting", "running", "finished", "interrupted", "stopped"]
STATUS_FILE = "status.json"
FINITE = ConfigDict(allow_inf_nan=False)
Moment = Annotated[float, Field(ge=0, le=MAX_TIME)]
STALE_S = 30.0  # a driver that has not been heard of for so long is gone


@dataclass
class TaskRow:
    __pydantic_config__ = FINITE

    id: str
    name: str
    kind: str
    status: str = "queued"
    attempts: int = 0
    reason: str = ""
    gang: int | None = None
    phase: str = ""
    step: int = 0
    total: int = 0
    loss: float | None = None
    seconds: float = 0.0  # of the running attempt, or of the one that finished it
    scores: Scores | None = None


@dataclass
class RunStatus:
    __pydantic_config__ = FINITE

    model: str
    method: str
    state: RunState = "starting"
    note: str = ""  # what holds the run up, or why it stopped
    driver: str = field(default_factory=lambda: f"{platform.node()}:{os.getpid()}")
    started_at: Moment = field(default_factory=time.time)
    updated_at: Moment = field(default_factory=time.time)
    done_before: int = 0  # tasks that were done before this driver started
    gangs: int = 0  # ready ones
    wanted_gangs: int = 0
    tasks: list[TaskRow] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """asdict would copy every value, which takes seventy times as long."""
        return {**vars(self), "tasks": [vars(row) for row in self.tasks]}

    @classmethod
    def from_json(cls, content: Any) -> "RunStatus":
        """Raises ValueError for what is no snapshot; keys that this version does not know are left out."""
        return SNAPSHOT.validate_python(content)

    def count(self, status: str) -> int:
        return sum(row.status == status for row in self.tasks)

    @property
    def exit_code(self) -> int:
        """0: all done that this driver was to do. 1: not all. 130: interrupted."""
        if self.state == "interrupted":
            return 130
        return 0 if self.count("done") + self.count("waiting") == len(self.tasks) else 1

    @property
    def is_stale(self) -> bool:
        """It says that a driver is at work, which has not written for a while."""
        return self.state in ("starting", "running") and time.time() - self.updated_at > STALE_S


SNAPSHOT = TypeAdapter(RunStatus)


def read_status(store: Files) -> RunStatus | None:
    """The last snapshot of a run; None if there is none, or if it cannot be read: a driver makes it anew."""
    try:
        content = store.read_json(STATUS_FILE)
        return None if content is None else RunStatus.from_json(content)
    except (DamagedError, ValueError):
        return None


def new_row(task: Task) -> TaskRow:
    return TaskRow(task.id, task.concept.name, task.concept.kind)
