"""Finished tasks that are to be done once more, otherwise: replaced/<task>.json is the task that comes in its place."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from advanchor.batch.plan import Task
from advanchor.rundir.records import checked
from advanchor.rundir.store import Store

TASK = TypeAdapter(Task)


def name_of(task_id: str) -> str:
    return f"replaced/{task_id}.json"


def replace(store: Store, task: Task, other: Task) -> None:
    """Let another task for the same concept come in the place of one."""
    store.write_json(name_of(task.id), other.model_dump(mode="json"))


def in_place(store: Store, tasks: Iterable[Task]) -> list[Task]:
    """The tasks, each the last that came in its place; damaged replacements are noted in `store.damaged`."""
    content = store.read_many(store.find("replaced", "*.json"))
    return [last(store, task, content) for task in tasks]


def last(store: Store, task: Task, content: Mapping[str, Any]) -> Task:
    seen = {task.id}
    while (name := name_of(task.id)) in content:
        other = store.sound(name, content[name], partial(replacement, task=task))
        if other is None or other.id in seen:
            break
        seen.add(other.id)
        task = other
    return task


def replacement(content: Any, *, task: Task) -> Task:
    """Raises ValueError for what is no task of the same concept and base."""
    other: Task = checked(content, TASK)
    if (other.concept, other.base_digest, other.profile) != (task.concept, task.base_digest, task.profile):
        raise ValueError("it is about another concept or base")
    return other
