"""What happens to a task after each event: a pure function, so that every course of events can be tested."""

from dataclasses import dataclass, replace
from typing import Literal

Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL: tuple[Status, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class TaskState:
    status: Status = "queued"
    attempts: int = 0  # charged ones
    uncharged: int = 0
    reason: str = ""  # of the last failure


@dataclass(frozen=True)
class Started:
    pass


@dataclass(frozen=True)
class Succeeded:
    pass


@dataclass(frozen=True)
class Broke:
    """The attempt ended without a result: a dead process or node, a passed deadline, an unexpected exception."""

    reason: str
    charged: bool = True  # False where the machine was taken away (preemption, drained node)


@dataclass(frozen=True)
class Refused:
    """The task can never succeed: the user's input is wrong."""

    reason: str


@dataclass(frozen=True)
class Cancelled:
    pass


@dataclass(frozen=True)
class Interrupted:
    """The whole run stops; the task stays resumable."""


Event = Started | Succeeded | Broke | Refused | Cancelled | Interrupted
MAX_UNCHARGED = 20  # nothing is retried for ever, not even what is not the task's fault


def policy(state: TaskState, event: Event, max_attempts: int) -> TaskState:
    """The task's next state. A final state never changes."""
    if state.status in FINAL:
        return state
    match event:
        case Started():
            return replace(state, status="running")
        case Succeeded():
            return replace(state, status="done", reason="")
        case Broke(reason, charged):
            attempts, uncharged = state.attempts + charged, state.uncharged + (not charged)
            exhausted = attempts >= max_attempts or uncharged >= MAX_UNCHARGED
            return TaskState("failed" if exhausted else "queued", attempts, uncharged, reason)
        case Refused(reason):
            return replace(state, status="failed", reason=reason)
        case Cancelled():
            return replace(state, status="cancelled")
        case Interrupted():
            return replace(state, status="queued")
