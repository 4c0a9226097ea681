"""The run directory, which is the database of a run: any machine that can read it knows its state.

    batch.yaml  plan.json  status.json  cancelled/<task>.json
    tasks/<slug>-<id>/{result.json, delta-<sha>.safetensors, anchor-<sha>.safetensors, ..., attempts/*.json}

Files are named by their content and written first; result.json, which names them with their sha256, comes last.
A task is done when its result.json is there.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from advanchor.artifacts import sha256
from advanchor.batch.plan import Task
from advanchor.rundir import records
from advanchor.rundir.records import checked_result, folder_of
from advanchor.rundir.storage import PATIENCE_S, DamagedError, Files, StoreError

RESULT = "result.json"
FORGIVEN = "forgiven.json"  # attempts from before its time are not counted any more

__all__ = ["Store", "StoreError"]


def of_folder(check: Callable[[Any, str], Any], name: str, content: Any) -> Any:
    return check(content, name.split("/")[1])


def is_attempt(content: Any, folder: str) -> records.Attempt:
    return records.checked(content, records.ATTEMPT)


def is_forgiven(content: Any, folder: str) -> records.Forgiven:
    return records.checked(content, records.FORGIVEN)


class Store(Files):
    """A run directory. Files that are damaged cost their task, not the run: `damaged` says which, and why."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        super().__init__(url, patience_s)
        self.damaged: dict[str, str] = {}  # by name; filled as files are read

    def task_path(self, task: Task, name: str) -> str:
        return f"tasks/{task.folder}/{name}"

    # --- results

    def result(self, task: Task) -> dict[str, Any] | None:
        """None if the task is not done; so it is, too, if its result is damaged."""
        name = self.task_path(task, RESULT)
        return self.sound(name, self.readable(name), lambda content: checked_result(content, task.folder))

    def sound(self, name: str, content: Any, check: Callable[[Any], Any]) -> Any:
        """The content of a file as it comes out of a check; None, and a note in `damaged`, if it does not."""
        if content is None:
            return None
        try:
            if isinstance(content, DamagedError):
                raise content
            return check(content)
        except (DamagedError, ValueError) as error:
            why = str(error).removeprefix(f"{self.path(name)} is damaged: ")
            self.damaged.setdefault(name, why)
            return None

    def publish(self, task: Task, files: Mapping[str, bytes], result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the files ("delta.safetensors", ...) under names with their sha256, then result.json; returns it."""
        listed = {}
        for name, data in files.items():
            stem, _, ending = name.partition(".")
            digest = sha256(data)
            listed[stem] = {"name": f"{stem}-{digest[:16]}.{ending}", "sha256": digest, "bytes": len(data)}
            self.write(self.task_path(task, listed[stem]["name"]), data)
        complete = {**result, "files": listed}
        self.write_json(self.task_path(task, RESULT), complete)
        return complete

    def read_file(self, task: Task, stem: str) -> bytes:
        """A file of a finished task. Raises StoreError if it is not the one that its result names."""
        result = self.result(task)
        if result is None or stem not in result["files"]:
            raise StoreError(f"{self.task_path(task, RESULT)} names no {stem}")
        entry = result["files"][stem]
        data = self.read(self.task_path(task, entry["name"]))
        if data is None or sha256(data) != entry["sha256"]:
            raise StoreError(f"{self.task_path(task, entry['name'])} is missing or damaged (sha256 differs)")
        return data

    def results(self) -> list[dict[str, Any]]:
        """Every result in the run directory, in the order of the folders."""
        found = self.all("tasks", "*", RESULT, check=checked_result)
        return [result for _, result in found]

    def damaged_files(self, results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """The tasks, by id, of which a file is missing or has another size, with what is wrong: one listing."""
        sizes = self.sizes("tasks")
        found = {}
        for result in results:
            for entry in result["files"].values():
                name = f"tasks/{folder_of(result)}/{entry['name']}"
                if sizes.get(name) != entry["bytes"]:
                    found[result["task"]] = f"{name} is {'missing' if name not in sizes else 'of another size'}"
        return found

    def changed_files(self, results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """As damaged_files, by reading every file and comparing its sha256."""
        found = {}
        for result in results:
            for entry in result["files"].values():
                name = f"tasks/{folder_of(result)}/{entry['name']}"
                data = self.read(name)
                if data is None or sha256(data) != entry["sha256"]:
                    found[result["task"]] = f"{name} is {'missing' if data is None else 'damaged (sha256 differs)'}"
        return found

    def disown(self, task: Task, why: str) -> None:
        """Forget a result whose files are damaged, so that the task is done again."""
        self.damaged.setdefault(self.task_path(task, RESULT), why)
        self.delete(self.task_path(task, RESULT))

    # --- the plan

    def keep_plan(self, batch: str, overrides: Sequence[str], plan: Mapping[str, Any]) -> None:
        """The batch as it was written, for people, and what became of it, for `resume` from any machine."""
        notes = "".join(f"# --set {override}\n" for override in overrides)
        self.write("batch.yaml", (notes + batch).encode())
        self.write_json("plan.json", plan)

    # --- attempts

    def record_attempt(self, task: Task, record: Mapping[str, Any]) -> None:
        """Keep what became of one attempt, under a name that no other attempt has."""
        name = f"{record['started_at']:.3f}-{record['gang']}.json"
        self.write_json(self.task_path(task, f"attempts/{name}"), record)

    def attempts(self) -> dict[str, list[dict[str, Any]]]:
        """Attempts by the task's folder, in order, without those that were forgiven."""
        forgiven = {name.split("/")[1]: note.at for name, note in self.all("tasks", "*", FORGIVEN, check=is_forgiven)}
        found: dict[str, list[dict[str, Any]]] = {}
        for folder, record in self.every_attempt():
            if record["started_at"] > forgiven.get(folder, 0):
                found.setdefault(folder, []).append(record)
        return {folder: sorted(records, key=lambda record: record["started_at"]) for folder, records in found.items()}

    def every_attempt(self) -> list[tuple[str, dict[str, Any]]]:
        """Every attempt on record, with the task's folder; damaged records are left out."""
        records = self.all("tasks", "*", "attempts", "*.json", check=is_attempt)
        return [(name.split("/")[1], record.model_dump()) for name, record in records]

    def forgive(self, tasks: Iterable[Task]) -> None:
        """Let failed tasks start afresh; the records of their attempts stay."""
        for task in tasks:
            self.write_json(self.task_path(task, FORGIVEN), {"at": time.time()})

    def all(self, *pattern: str, check: Callable[[Any, str], Any]) -> list[tuple[str, Any]]:
        """What a check makes of the files that match, by name; damaged ones are left out, and noted in `damaged`.

        check: (content, name of the task's folder); raises ValueError.
        """
        read = self.read_many(self.find(*pattern))
        found = [(name, self.sound(name, content, partial(of_folder, check, name))) for name, content in read.items()]
        return [(name, content) for name, content in found if content is not None]

    # --- cancelled tasks: asked for from any machine, seen by the driver

    def cancel(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self.write_json(f"cancelled/{task.id}.json", {"at": time.time()})

    def cancelled(self) -> set[str]:
        """The ids of cancelled tasks."""
        return {name.split("/")[1].removesuffix(".json") for name in self.find("cancelled", "*.json")}

    def uncancel(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self.delete(f"cancelled/{task.id}.json")

    # --- probes: does a node see this very directory?

    def write_probe(self, probe: str) -> None:
        self.write(f"probes/{probe}", probe.encode())

    def take_probe(self, probe: str) -> bool:
        """Whether a probe that another process has written is here; it is removed."""
        if self.read(f"probes/{probe}") != probe.encode():
            return False
        self.delete(f"probes/{probe}")
        return True
