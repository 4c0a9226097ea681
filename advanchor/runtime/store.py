"""The run directory, which is the database of a run: any machine that can read it knows its state.

    batch.yaml  plan.json  status.json  cancelled/<task>.json
    tasks/<slug>-<id>/{result.json, delta-<sha>.safetensors, anchor-<sha>.safetensors, ..., attempts/*.json}

Files are named by their content and written first; result.json, which names them with their sha256, comes last.
A task is done when its result.json is there.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from advanchor.artifacts import sha256
from advanchor.plan import Task
from advanchor.runtime.files import Files, StoreError

RESULT = "result.json"
FORGIVEN = "forgiven.json"  # attempts from before its time are not counted any more

__all__ = ["Store", "StoreError"]


class Store(Files):
    def task_path(self, task: Task, name: str) -> str:
        return f"tasks/{task.folder}/{name}"

    # --- results

    def result(self, task: Task) -> dict[str, Any] | None:
        return self.read_json(self.task_path(task, RESULT))

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
        return list(self.read_many(self.find("tasks", "*", RESULT)).values())

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
        forgiven = {name.split("/")[1]: note["at"] for name, note in self.all("tasks", "*", FORGIVEN)}
        found: dict[str, list[dict[str, Any]]] = {}
        for name, record in self.all("tasks", "*", "attempts", "*.json"):
            folder = name.split("/")[1]
            if record["started_at"] > forgiven.get(folder, 0):
                found.setdefault(folder, []).append(record)
        return {folder: sorted(records, key=lambda record: record["started_at"]) for folder, records in found.items()}

    def forgive(self, tasks: Iterable[Task]) -> None:
        """Let failed tasks start afresh; the records of their attempts stay."""
        for task in tasks:
            self.write_json(self.task_path(task, FORGIVEN), {"at": time.time()})

    def all(self, *pattern: str) -> list[tuple[str, Any]]:
        return list(self.read_many(self.find(*pattern)).items())

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
