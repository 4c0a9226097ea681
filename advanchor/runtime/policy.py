"""What happens to a task after each event: a pure function, so that every course of events can be tested."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from advanchor.training.finite import NotFiniteError

Status = Literal["queued", "running", "done", "failed", "cancelled", "waiting"]  # waiting: for a later driver
FINAL: tuple[Status, ...] = ("done", "failed", "cancelled", "waiting")  # of one driver


@dataclass(frozen=True)
class TaskState:
    status: Status = "queued"
    attempts: int = 0  # charged ones
    uncharged: int = 0
    alone: bool = False  # not to be packed with others: a pack that it was in has broken
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
    packed: bool = False  # True where others were in the same attempt: any of them may be the cause


@dataclass(frozen=True)
class Refused:
    """The task can never succeed: the user's input is wrong."""

    reason: str


@dataclass(frozen=True)
class Cancelled:
    pass


@dataclass(frozen=True)
class Interrupted:
    """The attempt was stopped for a reason that is not the task's; the task stays resumable."""


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
        case Broke(reason, charged, packed):
            counts = charged and not packed
            attempts, uncharged = state.attempts + counts, state.uncharged + (not counts)
            exhausted = attempts >= max_attempts or uncharged >= MAX_UNCHARGED
            return TaskState(
                "failed" if exhausted else "queued", attempts, uncharged, state.alone or (packed and charged), reason
            )
        case Refused(reason):
            return replace(state, status="failed", reason=reason)
        case Cancelled():
            return replace(state, status="cancelled")
        case Interrupted():
            return replace(state, status="queued")


def broken(error: BaseException, reason: str, *, packed: bool) -> Event:
    """What an exception in an attempt means: numbers that have run away would do so again, all else may pass."""
    if isinstance(error, NotFiniteError) and not packed:
        return Refused(str(error))
    return Broke(f"{type(error).__name__}: {reason}", packed=packed)


def recalled(records: Iterable[Mapping[str, Any]], max_attempts: int) -> TaskState:
    """The state after the attempts that an earlier driver recorded: a crash of the driver forgets none of them."""
    state = TaskState()
    for record in records:
        match record["event"]:
            case "Broke":
                event: Event = Broke(record["reason"], record["charged"], record["packed"])
            case "Refused":
                event = Refused(record["reason"])
            case _:
                continue
        state = policy(state, event, max_attempts)
    return state
