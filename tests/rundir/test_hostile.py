"""A run directory may have been written by anybody, and damaged by anything."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from records import result_of
from test_store import FILES, TASK, attempt, task

from advanchor.artifacts import sha256
from advanchor.batch.plan import Task, load_plan
from advanchor.batch.spec import BatchError
from advanchor.rundir.status import RunStatus, new_row, read_status
from advanchor.rundir.storage import MAX_DEPTH, DamagedError, parse
from advanchor.rundir.store import Store, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


@pytest.mark.parametrize("id", ["x/../../../VICTIM/evil", "..", "", "a" * 11, "a" * 13, "A" * 12, "a" * 12 + "\n"])
def test_a_task_id_is_a_part_of_paths_and_nothing_else(id: str) -> None:  # noqa: A002
    content = {**TASK.model_dump(mode="json"), "id": id}
    with pytest.raises(ValidationError, match="id"):
        Task.model_validate(content)


@pytest.mark.parametrize("content", [[], {}, None, 3, "x", {"tasks": []}, {"tasks": {}}, {"spec": 1, "tasks": [1]}])
def test_what_is_no_plan_is_refused_in_one_line(content: object) -> None:
    with pytest.raises(BatchError, match=r"^[^\n]+$"):
        load_plan(content)


@pytest.mark.parametrize("name", ["../outside", "tasks/../../outside", "link/x", "link", "away/x"])
def test_nothing_outside_is_read_written_or_deleted(store: Store, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "outside"
    victim.mkdir()
    (victim / "x").write_text("theirs")
    store.write("a", b"mine")
    Path(store.path("link")).symlink_to(victim / "x" if name == "link" else victim)
    Path(store.path("away")).symlink_to("../outside")
    for act in (lambda: store.write(name, b"evil"), lambda: store.read(name), lambda: store.delete(name)):
        with pytest.raises(StoreError, match="leads outside of the run directory"):
            act()
    assert [path.name for path in victim.iterdir()] == ["x"] and (victim / "x").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "run"]


def test_a_pipe_is_not_waited_for(store: Store) -> None:
    store.write("a", b"mine")
    os.mkfifo(store.path("status.json"))
    with pytest.raises(StoreError, match="neither read nor written"):
        store.read("status.json")


def test_a_run_directory_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    Store(str(tmp_path / "run")).write("a/b", b"1")
    assert (tmp_path / "real" / "a" / "b").read_bytes() == b"1"


BAD_JSON = {
    "empty": b"",
    "half": b'{"a": ',
    "no text": b"\xff\xfe{}",
    "deep": b"[" * 100_000,
    "deep and whole": b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_json_is_named(store: Store, kind: str) -> None:
    store.write("x.json", BAD_JSON[kind])
    with pytest.raises(DamagedError, match=r"run/x\.json is damaged: it is [^\n]+$"):
        store.read_json("x.json")


def test_numbers_that_are_none_are_none() -> None:
    found = parse(b'{"a": NaN, "b": [1e999, -Infinity], "c": ' + b"9" * 5000 + b', "d": 12, "e": 0.5}')
    assert found == {"a": None, "b": [None, None], "c": None, "d": 12, "e": 0.5}


def changed(path: str, value: Any) -> Callable[[dict], Any]:
    def change(content: dict) -> Any:
        *keys, last = path.split(".")
        at = content
        for key in keys:
            at = at[key]
        at[last] = value
        return content

    return change


SPOILED: dict[str, Callable[[dict], Any]] = {
    "a list": lambda content: [content],
    "a number": lambda content: 3,
    "no files": lambda content: {k: v for k, v in content.items() if k != "files"},
    "another task": changed("task", "0" * 12),
    "a path for a task": changed("task", "x/../../y"),
    "a path for a file": changed("files.delta.name", "../../delta-0123456789abcdef.safetensors"),
    "another concept": changed("concept.name", "elsewhere"),
    "no concept": changed("concept", []),
    "seconds of text": changed("seconds", {"erasing": "long"}),
    "scores of text": changed("scores", {"ua": "good"}),
    "scores of a base of text": changed("scores", {"ua": 1.0, "base": "good"}),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_result_costs_its_task_alone(store: Store, how: str) -> None:
    other = task("star")
    for own in (TASK, other):
        store.publish(own, FILES, result_of(own))
    name = store.task_path(TASK, "result.json")
    store.write_json(name, SPOILED[how](store.read_json(name)))
    fresh = Store(store.url)
    assert [result["task"] for result in fresh.results()] == [other.id]
    assert fresh.result(TASK) is None and fresh.result(other)
    assert list(fresh.damaged) == [name] and "\n" not in fresh.damaged[name]
    fresh.publish(TASK, FILES, result_of(TASK))
    assert len(Store(store.url).results()) == 2


ATTEMPTS = [
    b"", b"[]", b"{}", b'{"event": "Exploded", "started_at": 1, "gang": 1}', b'{"event": "Broke", "started_at": 1e30}',
    b'{"event": "Broke", "started_at": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("content", ATTEMPTS)
def test_a_spoiled_attempt_is_left_out(store: Store, content: bytes) -> None:
    store.record_attempt(TASK, attempt(1, 1000.5))
    store.write(store.task_path(TASK, "attempts/1.json"), content)
    store.write(store.task_path(TASK, "forgiven.json"), content)
    store.write("cancelled/..json", content)
    assert [record["gang"] for record in store.attempts()[TASK.folder]] == [1]
    assert len(store.damaged) == 2


STATUS = RunStatus("pocket", "esd", tasks=[new_row(TASK)]).to_json()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", json.dumps({**STATUS, "tasks": 1}).encode(),
                                     json.dumps({**STATUS, "updated_at": 1e300}).encode(),
                                     json.dumps({**STATUS, "state": "\x1b"}).encode()])  # fmt: skip
def test_a_spoiled_snapshot_is_ignored(store: Store, content: bytes) -> None:
    assert read_status(store) is None
    store.write("status.json", content)
    assert read_status(store) is None


def test_a_snapshot_may_say_more_than_is_known(store: Store) -> None:
    store.write_json("status.json", {**STATUS, "mood": "good", "tasks": [{**STATUS["tasks"][0], "mood": "good"}]})
    found = read_status(store)
    assert found is not None and found.tasks[0].id == TASK.id


@pytest.mark.parametrize("damage", ["cut off", "empty", "gone", "flipped"])
def test_damage_to_a_finished_task_is_seen(store: Store, damage: str) -> None:
    """By its size at once, and of equal size by its bytes."""
    other = task("star")
    for own in (TASK, other):
        store.publish(own, FILES, result_of(own))
    results = store.results()
    assert store.damaged_files(results) == store.changed_files(results) == {}
    name = store.task_path(TASK, store.result(TASK)["files"]["delta"]["name"])  # type: ignore[index]
    data = FILES["delta.safetensors"]
    made = {"cut off": data[:-1], "empty": b"", "flipped": bytes([data[0] ^ 1]) + data[1:]}
    store.delete(name) if damage == "gone" else store.write(name, made[damage])
    assert list(store.changed_files(results)) == [TASK.id]
    assert list(store.damaged_files(results)) == ([] if damage == "flipped" else [TASK.id])
    store.disown(TASK, "damaged")
    assert store.result(TASK) is None and sha256(b"") and store.result(other)


def test_a_lone_surrogate_is_written_as_json_escapes_it(store: Store) -> None:
    store.write_json("x.json", {"a": "\ud800"})
    assert store.read_json("x.json") == {"a": "\ud800"}
