"""The run directory, which is the database of a run: any machine that can read it knows its state.

    batch.yaml  status.json  tasks/<slug>-<id>/{result.json, delta-<sha>.safetensors, anchor-<sha>.safetensors, ...}

Files are named by their content and written first; result.json, which names them with their sha256, comes last.
A task is done when its result.json is there.
"""

import glob
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from advanchor.artifacts import sha256
from advanchor.plan import Task


class StoreError(RuntimeError):
    """A run directory that cannot be used, or a file in it that is not what its result says."""


class Store:
    def __init__(self, url: str) -> None:
        """`url`: a folder or anything that fsspec opens; relative folders are made absolute."""
        self.url = url if "://" in url else str(Path(url).expanduser().resolve())
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StoreError(f"run directory {url!r} cannot be opened: {error}") from error
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that nobody ever reads half of it, and so that it survives a power cut."""
        if self.is_local:
            write_atomically(Path(self.path(name)), data)
        else:
            self.fs.pipe_file(self.path(name), data)  # object stores replace an object as a whole

    def read(self, name: str) -> bytes | None:
        try:
            return self.fs.cat_file(self.path(name))
        except FileNotFoundError:
            return None

    def write_json(self, name: str, content: object) -> None:
        self.write(name, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        data = self.read(name)
        return None if data is None else json.loads(data)

    def task_path(self, task: Task, name: str) -> str:
        return f"tasks/{task.folder}/{name}"

    def result(self, task: Task) -> dict[str, Any] | None:
        return self.read_json(self.task_path(task, "result.json"))

    def publish(self, task: Task, files: Mapping[str, bytes], result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the files ("delta.safetensors", ...) under names with their sha256, then result.json; returns it."""
        listed = {}
        for name, data in files.items():
            stem, _, ending = name.partition(".")
            digest = sha256(data)
            listed[stem] = {"name": f"{stem}-{digest[:16]}.{ending}", "sha256": digest, "bytes": len(data)}
            self.write(self.task_path(task, listed[stem]["name"]), data)
        complete = {**result, "files": listed}
        self.write_json(self.task_path(task, "result.json"), complete)
        return complete

    def read_file(self, task: Task, stem: str) -> bytes:
        """A file of a finished task. Raises StoreError if it is not the one that its result names."""
        result = self.result(task)
        if result is None or stem not in result["files"]:
            raise StoreError(f"{self.task_path(task, 'result.json')} names no {stem}")
        entry = result["files"][stem]
        data = self.read(self.task_path(task, entry["name"]))
        if data is None or sha256(data) != entry["sha256"]:
            raise StoreError(f"{self.task_path(task, entry['name'])} is missing or damaged (sha256 differs)")
        return data

    def record_attempt(self, task: Task, record: Mapping[str, Any]) -> None:
        """Keep what became of one attempt, under a name that no other attempt has."""
        self.write_json(self.task_path(task, f"attempts/{record['started_at']}-{record['attempt']}.json"), record)

    def results(self) -> list[dict[str, Any]]:
        """Every result in the run directory, in the order of the folders."""
        paths = sorted(self.fs.glob(f"{glob.escape(self.path('tasks'))}/*/result.json"))
        return (
            [json.loads(data) for data in self.fs.cat([glob.escape(path) for path in paths]).values()] if paths else []
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder; readable as far as the umask allows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
