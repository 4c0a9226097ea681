"""What people think of erasures: verdicts/<task>.json, the last word on each, about the delta that was looked at."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from pydantic import Field, TypeAdapter

from advanchor.rundir.records import Record, Sha256, Time, checked
from advanchor.rundir.store import Store

Word = Literal["accept", "again", "reject"]
WORDS: tuple[str, ...] = get_args(Word)
REJECTED = ("again", "reject")
MAX_NOTE = 2000  # characters


class Verdict(Record):
    """verdicts/*.json."""

    verdict: Word
    note: str = Field(default="", max_length=MAX_NOTE)
    by: str = Field(default="", max_length=200)
    at: Time
    delta: Sha256  # of the file that was looked at


VERDICT = TypeAdapter(Verdict)


def name_of(task_id: str) -> str:
    return f"verdicts/{task_id}.json"


def give(store: Store, result: Mapping[str, Any], verdict: str, note: str = "", by: str = "") -> Verdict:
    """Keep a verdict on a finished task in place of an earlier one. Raises ValueError, in a few words."""
    if verdict == "reject" and not note.strip():
        raise ValueError("note: a rejection needs a reason")
    delta = result["files"]["delta"]["sha256"]
    content = {"verdict": verdict, "note": note.strip(), "by": by, "at": time.time(), "delta": delta}
    given: Verdict = checked(content, VERDICT)
    store.write_json(name_of(result["task"]), given.model_dump())
    return given


def take_back(store: Store, task_id: str) -> None:
    store.delete(name_of(task_id))


def verdicts(store: Store, results: Iterable[Mapping[str, Any]]) -> dict[str, Verdict]:
    """By the task's id, those about the very deltas of these results; damaged ones are noted in `store.damaged`."""
    by_name = {name_of(result["task"]): result for result in results}
    found = store.read_many([name for name in store.find("verdicts", "*.json") if name in by_name])
    counted = {}
    for name, content in found.items():
        given = store.sound(name, content, lambda content: checked(content, VERDICT))
        result = by_name[name]
        if given and given.delta == (result["files"].get("delta") or {}).get("sha256"):
            counted[result["task"]] = given
    return counted
