"""Whatever happens in whatever order: a task ends, and what has ended stays so."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from advanchor.runtime.policy import (
    FINAL,
    MAX_UNCHARGED,
    Broke,
    Cancelled,
    Event,
    Interrupted,
    Refused,
    Started,
    Succeeded,
    TaskState,
    policy,
    recalled,
)

settings.register_profile("course", deadline=None, database=None)
settings.load_profile("course")

REASONS = st.sampled_from(["node died", "no result within 10 s", ""])
BREAKS = st.builds(Broke, REASONS, charged=st.booleans(), packed=st.booleans())
EVENTS = st.one_of(
    st.sampled_from([Started(), Succeeded(), Cancelled(), Interrupted()]), BREAKS, st.builds(Refused, REASONS)
)
COURSES = st.lists(EVENTS, max_size=60)
LIMITS = st.integers(1, 5)


def course(events: Sequence[Event], max_attempts: int, state: TaskState | None = None) -> list[TaskState]:
    states = [state or TaskState()]
    for event in events:
        states.append(policy(states[-1], event, max_attempts))
    return states


@given(COURSES, LIMITS)
def test_a_final_state_never_changes(events: list[Event], max_attempts: int) -> None:
    states = course(events, max_attempts)
    ended = [state for state in states if state.status in FINAL]
    assert all(state == ended[0] for state in ended)
    assert states[len(states) - len(ended) :] == ended


@given(COURSES, LIMITS)
def test_attempts_are_never_more_than_allowed(events: list[Event], max_attempts: int) -> None:
    for state in course(events, max_attempts):
        assert 0 <= state.attempts <= max_attempts and 0 <= state.uncharged <= MAX_UNCHARGED
        if state.status not in FINAL:
            assert state.attempts < max_attempts and state.uncharged < MAX_UNCHARGED


@given(COURSES, LIMITS)
def test_counts_only_grow_and_one_at_a_time(events: list[Event], max_attempts: int) -> None:
    states = course(events, max_attempts)
    for event, before, after in zip(events, states, states[1:], strict=False):
        grown = after.attempts - before.attempts, after.uncharged - before.uncharged
        if before.status in FINAL or not isinstance(event, Broke):
            assert grown == (0, 0)
        else:
            assert grown == ((1, 0) if event.charged and not event.packed else (0, 1))


@given(COURSES, LIMITS)
def test_a_task_is_alone_from_the_first_charged_break_of_a_pack_on(events: list[Event], max_attempts: int) -> None:
    """A preempted machine says nothing of the pack that was on it."""
    states = course(events, max_attempts)
    for event, before, after in zip(events, states, states[1:], strict=False):
        broke = isinstance(event, Broke) and event.packed and event.charged and before.status not in FINAL
        assert after.alone == (before.alone or broke)


@given(st.lists(st.one_of(BREAKS, st.builds(Refused, REASONS)), max_size=8), LIMITS)
def test_what_an_earlier_driver_recorded_is_remembered(events: list[Broke | Refused], max_attempts: int) -> None:
    records = [{"event": type(event).__name__, **vars(event)} for event in events]
    others = [{"event": name, "reason": ""} for name in ("Interrupted", "Cancelled", "Succeeded")]
    assert recalled([*others, *records, *others], max_attempts) == course(events, max_attempts)[-1]


@given(st.data(), LIMITS)
def test_a_task_that_only_breaks_ends(data: st.DataObject, max_attempts: int) -> None:
    """After max_attempts charged breaks or MAX_UNCHARGED others: at the latest with the sum of both, less one."""
    bound = max_attempts + MAX_UNCHARGED - 1
    breaks = data.draw(st.lists(BREAKS, min_size=bound, max_size=bound))
    events = [event for broken in breaks for event in (Started(), broken)]
    assert course(events, max_attempts)[-1].status == "failed"


@given(COURSES, COURSES, LIMITS)
def test_success_is_final(before: list[Event], after: list[Event], max_attempts: int) -> None:
    state = course(before, max_attempts)[-1]
    done = policy(state, Succeeded(), max_attempts)
    assert done.status == (state.status if state.status in FINAL else "done")
    if done.status == "done":
        assert done.reason == "" and course(after, max_attempts, done)[-1] == done


def test_three_breaks_of_three_fail_with_the_last_reason() -> None:
    events: list[Event] = [Started(), Broke("a"), Started(), Broke("preempted", charged=False), Started(), Broke("b")]
    states = course(events, 3)
    assert [state.status for state in states] == ["queued", *["running", "queued"] * 3]
    assert states[-1] == TaskState("queued", attempts=2, uncharged=1, reason="b")
    assert policy(states[-1], Broke("c"), 3) == TaskState("failed", attempts=3, uncharged=1, reason="c")


def test_a_break_in_a_pack_is_nobodys_own() -> None:
    """Otherwise three breaks of a pack of four would fail four tasks, and only one of them may be to blame."""
    assert course([Started(), Broke("died", packed=True)], 1)[-1] == TaskState(
        "queued", attempts=0, uncharged=1, alone=True, reason="died"
    )


def test_a_refusal_fails_at_once() -> None:
    assert course([Started(), Refused("no such word")], 3)[-1] == TaskState("failed", reason="no such word")


def test_an_interruption_costs_no_attempt() -> None:
    assert course([Started(), Interrupted()], 1)[-1] == TaskState("queued")


def test_a_cancelled_task_is_not_tried_again() -> None:
    assert course([Started(), Cancelled(), Started(), Succeeded()], 3)[-1].status == "cancelled"
