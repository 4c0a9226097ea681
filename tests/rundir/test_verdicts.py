"""Verdicts are kept, count for the delta that was looked at, and are checked when they are read."""

from pathlib import Path

import pytest
from published import publish, scores, task

from advanchor.batch.plan import again
from advanchor.methods.adv_anchor import Settings
from advanchor.report.table import rows_of
from advanchor.rundir.again import in_place, replace
from advanchor.rundir.store import Store
from advanchor.rundir.verdicts import give, name_of, take_back, verdicts

STRIPED = task("striped")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    publish(store, STRIPED, scores(0.9))
    return store


def only(store: Store) -> dict:
    return {task: (given.verdict, given.note) for task, given in verdicts(store, store.results()).items()}


def test_a_verdict_is_kept_until_another_or_none(store: Store) -> None:
    (result,) = store.results()
    give(store, result, "reject", " still striped ", by="mira")
    assert only(Store(store.url)) == {STRIPED.id: ("reject", "still striped")}
    give(store, result, "accept")
    assert only(store) == {STRIPED.id: ("accept", "")}
    take_back(store, STRIPED.id)
    take_back(store, STRIPED.id)
    assert only(store) == {}


def test_rows_have_it(store: Store) -> None:
    give(store, store.results()[0], "again", "=note")
    (row,) = rows_of(store, store.results())
    assert (row["verdict"], row["note"]) == ("again", "=note")


def test_what_is_no_verdict_is_refused(store: Store) -> None:
    (result,) = store.results()
    for verdict, note in (("fine", ""), ("reject", "  "), ("accept", "x" * 2001), (None, ""), ({}, "")):
        with pytest.raises(ValueError):
            give(store, result, verdict, note)  # type: ignore[arg-type]
    assert store.find("verdicts", "*") == []


def test_a_verdict_about_another_delta_does_not_count(store: Store) -> None:
    give(store, store.results()[0], "accept")
    publish(store, STRIPED, scores(0.9), delta=b"another")
    assert only(store) == {} and not store.damaged


@pytest.mark.parametrize("content", [b"", b"[]", b'{"verdict": "accept"}', b'{"verdict": "yes", "at": 1}', b"[" * 9999])
def test_a_damaged_verdict_is_left_out_and_named(store: Store, content: bytes) -> None:
    give(store, store.results()[0], "accept")
    store.write(name_of(STRIPED.id), content)
    assert only(store) == {} and list(store.damaged) == [name_of(STRIPED.id)]


def test_once_more_is_another_task_with_other_random_numbers() -> None:
    other = again(STRIPED)
    assert other.id != STRIPED.id and other.seed != STRIPED.seed and other.concept == STRIPED.concept
    assert again(STRIPED) == other != again(other)
    assert again(STRIPED, Settings(steps=7)).id not in (other.id, STRIPED.id)


def test_a_task_gives_way_to_the_last_of_its_replacements(store: Store) -> None:
    second, dotted = again(STRIPED), task("dotted")
    replace(store, STRIPED, second)
    replace(store, second, again(second))
    assert in_place(store, [dotted, STRIPED]) == [dotted, again(second)]


def test_replacements_in_a_circle_end(store: Store) -> None:
    second = again(STRIPED)
    replace(store, STRIPED, second)
    replace(store, second, STRIPED)
    assert in_place(store, [STRIPED]) == [second]


def test_a_replacement_by_another_concept_is_damage(store: Store) -> None:
    replace(store, STRIPED, task("dotted"))
    assert in_place(store, [STRIPED]) == [STRIPED]
    assert list(store.damaged) == [f"replaced/{STRIPED.id}.json"]
    store.write(f"replaced/{STRIPED.id}.json", b'{"id": "../../x"}')
    assert in_place(store, [STRIPED]) == [STRIPED]
