"""The snapshot of a run that anyone can read, with or without its driver: status.json."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from advanchor.plan import Task
from advanchor.runtime.policy import TaskState

View = Callable[["RunStatus"], None]  # is shown every snapshot
RunState = Literal["starting", "running", "finished", "interrupted", "stopped"]
STATUS_FILE = "status.json"
STALE_S = 30.0  # a driver that has not been heard of for so long is gone


@dataclass
class TaskRow:
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
    scores: dict[str, Any] | None = None


@dataclass
class RunStatus:
    model: str
    method: str
    state: RunState = "starting"
    note: str = ""  # what holds the run up, or why it stopped
    driver: str = field(default_factory=lambda: f"{platform.node()}:{os.getpid()}")
    started_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    done_before: int = 0  # tasks that were done before this driver started
    gangs: int = 0  # ready ones
    wanted_gangs: int = 0
    tasks: list[TaskRow] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """asdict would copy every value, which takes seventy times as long."""
        return {**vars(self), "tasks": [vars(row) for row in self.tasks]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RunStatus":
        rows = [TaskRow(**row) for row in content["tasks"]]
        return cls(**{**content, "tasks": rows})

    def count(self, status: str) -> int:
        return sum(row.status == status for row in self.tasks)

    @property
    def exit_code(self) -> int:
        """0: all done. 1: not all. 130: interrupted."""
        if self.state == "interrupted":
            return 130
        return 0 if self.count("done") == len(self.tasks) else 1

    @property
    def is_stale(self) -> bool:
        """It says that a driver is at work, which has not written for a while."""
        return self.state in ("starting", "running") and time.time() - self.updated_at > STALE_S


def new_row(task: Task) -> TaskRow:
    return TaskRow(task.id, task.concept.name, task.concept.kind)


def show_state(row: TaskRow, state: TaskState) -> None:
    row.status, row.attempts, row.reason = state.status, state.attempts, state.reason
    if state.status != "running":
        row.gang, row.phase = None, ""
