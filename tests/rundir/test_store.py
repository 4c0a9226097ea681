"""The run directory: what is in it is whole, on a disk and in an object store."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records import result_of

from advanchor.artifacts import sha256
from advanchor.batch.plan import Task, content_hash
from advanchor.concepts import Concept
from advanchor.methods.adv_anchor import Settings
from advanchor.rundir.storage import PIECE, is_transient
from advanchor.rundir.store import Store, StoreError

FILES = {"delta.safetensors": b"dW" * 100, "anchor.safetensors": b"e_adv"}


def task(name: str) -> Task:
    concept = Concept(name=name, kind="style", templates=("a {} shape",), neutral=("a shape",))
    chosen: dict[str, Any] = {
        "base": "pocket",
        "base_digest": "b" * 64,
        "profile": "c" * 64,
        "draws": "d" * 12,
        "precision": "fp32",
        "batch_seed": 0,
    }
    return Task(id=content_hash(name)[:12], concept=concept, method=Settings(), **chosen)


TASK = task("striped")
RESULT = result_of(TASK)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path}")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def everything(store: Store) -> set[str]:
    """All files in the run directory."""
    return {path.removeprefix(store.root).lstrip("/") for path in store.fs.find(store.root)}


def test_what_is_written_is_read(store: Store) -> None:
    assert store.read("a/b") is None and store.read_json("status.json") is None
    store.write("a/b", b"one")
    store.write("a/b", b"two")
    store.write_json("status.json", {"name": "\N{SNOWMAN}"})
    assert store.read("a/b") == b"two" and store.read_json("status.json") == {"name": "\N{SNOWMAN}"}
    assert everything(store) == {"a/b", "status.json"}


def test_files_are_read_into_a_buffer_whether_they_fit_or_not_and_hashed(store: Store) -> None:
    contents = [os.urandom(size) for size in (PIECE + 5, 3, 2 * PIECE, 0)]
    buffer = bytearray(PIECE + 7)
    for i, content in enumerate(contents):
        store.write(f"{i}", content)
        found = store.read_into(f"{i}", buffer)
        assert found is not None and found[0] == content and found[1] == sha256(content)
    assert store.read_into("none", buffer) is None


def test_a_published_task_has_its_files_under_their_content(store: Store) -> None:
    assert store.result(TASK) is None
    returned = store.publish(TASK, FILES, RESULT)
    assert store.result(TASK) == returned == {**RESULT, "files": returned["files"]}
    for name, data in FILES.items():
        stem, ending = name.split(".")
        digest = sha256(data)
        entry = {"name": f"{stem}-{digest[:16]}.{ending}", "sha256": digest, "bytes": len(data)}
        assert returned["files"][stem] == entry
        assert store.read_file(TASK, stem) == data
    names = {entry["name"] for entry in returned["files"].values()}
    assert everything(store) == {f"tasks/{TASK.folder}/{name}" for name in (*names, "result.json")}


def test_publishing_again_replaces_the_result(store: Store) -> None:
    store.publish(TASK, FILES, RESULT)
    store.publish(TASK, {"delta.safetensors": b"other"}, RESULT)
    assert store.read_file(TASK, "delta") == b"other"
    with pytest.raises(StoreError, match="names no anchor"):
        store.read_file(TASK, "anchor")


def test_results_are_listed_in_the_order_of_the_folders(store: Store) -> None:
    assert store.results() == []
    names = ["star", "AC/DC", "../../etc/passwd", "Star"]
    for name in names:
        store.publish(task(name), FILES, result_of(task(name)))
    expected = sorted(names, key=lambda name: task(name).folder)
    assert [result["concept"]["name"] for result in store.results()] == expected


def attempt(gang: int, started_at: float) -> dict[str, Any]:
    return {"gang": gang, "started_at": started_at, "event": "Broke"}


def test_every_attempt_is_kept_and_told_in_order(store: Store) -> None:
    """Also when two drivers start at the same moment, for their gangs are then told apart."""
    for gang, started_at in ((1, 1000.5), (2, 1000.5), (3, 999.5)):
        store.record_attempt(TASK, attempt(gang, started_at))
    names = {"1000.500-1.json", "1000.500-2.json", "999.500-3.json"}
    assert everything(store) == {f"tasks/{TASK.folder}/attempts/{name}" for name in names}
    assert store.result(TASK) is None
    assert [record["gang"] for record in store.attempts()[TASK.folder]] == [3, 1, 2]


def test_forgiven_attempts_stay_on_record_and_are_not_counted(store: Store) -> None:
    store.record_attempt(TASK, attempt(1, 1000.5))
    store.forgive([TASK])
    assert store.attempts() == {}
    assert f"tasks/{TASK.folder}/attempts/1000.500-1.json" in everything(store)
    store.record_attempt(TASK, attempt(2, time.time() + 1))
    assert [record["gang"] for record in store.attempts()[TASK.folder]] == [2]


def test_a_cancelled_task_can_be_called_back(store: Store) -> None:
    other = task("star")
    assert store.cancelled() == set()
    store.cancel([TASK, other])
    store.cancel([TASK])
    assert store.cancelled() == {TASK.id, other.id}
    store.uncancel([TASK])
    store.uncancel([TASK])
    assert store.cancelled() == {other.id}


def test_a_probe_is_seen_where_it_was_written_and_nowhere_else(store: Store) -> None:
    store.write_probe("abc")
    elsewhere = Store(store.url + "-other")
    assert not elsewhere.take_probe("abc") and not store.take_probe("abd")
    assert store.take_probe("abc")
    assert everything(store) == set()


@pytest.mark.parametrize("damage", [b"dX" * 100, b"", None])
def test_damage_is_seen(store: Store, damage: bytes | None) -> None:
    entry = store.publish(TASK, FILES, RESULT)["files"]["delta"]
    path = store.path("tasks", TASK.folder, entry["name"])
    store.fs.rm_file(path)
    if damage is not None:
        store.fs.pipe_file(path, damage)
    with pytest.raises(StoreError, match=rf"{entry['name']} is missing or damaged"):
        store.read_file(TASK, "delta")
    assert store.read_file(TASK, "anchor") == FILES["anchor.safetensors"]


def test_a_file_of_an_unfinished_task_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=r"result\.json names no delta"):
        store.read_file(TASK, "delta")


def test_relative_folders_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("runs/x").url == str(tmp_path / "runs" / "x")


@pytest.mark.parametrize("url", ["nowhere://x", "github://x", "zip://x", "ftp://x", "simplecache::s3://x", "://x"])
def test_an_unknown_kind_of_url(url: str) -> None:
    with pytest.raises(StoreError, match=f"'{url}' cannot be opened: .* is not one of file, s3, "):
        Store(url)


@pytest.mark.parametrize("url", ["~nosuchuser/x", "a\0b", "x" * 5000])
def test_a_folder_that_no_system_has(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        Store(url)
    assert len(str(caught.value)) < 500


def test_a_file_in_the_place_of_the_folder_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="it is a file, not a folder"):
        Store(str(tmp_path / "file"))
    with pytest.raises(StoreError, match="Not a directory"):
        Store(str(tmp_path / "file" / "run")).write("a", b"x")
    with pytest.raises(StoreError, match="it is a file, not a folder"):
        Store(f"file://{tmp_path}/file")


def test_links_in_a_circle_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(str(tmp_path / "a"))
    store = Store(str(tmp_path))
    for action in (lambda: store.read("a/x"), lambda: store.write("a/x", b"x")):
        with pytest.raises(StoreError, match=r"leads outside|File exists"):
            action()


def test_a_folder_that_became_a_file_is_not_waited_for(local: Store) -> None:
    Path(local.root).write_text("")
    with pytest.raises(StoreError):
        local.write("tasks/a", b"x")
    assert not is_transient(FileExistsError()) and not is_transient(OSError(errno.ELOOP, ""))


# --- on a disk


def in_the_way(store: Store, name: str) -> Path:
    """A folder where a file of the task is to be."""
    data = FILES[f"{name}.safetensors"]
    path = Path(store.path("tasks", TASK.folder, f"{name}-{sha256(data)[:16]}.safetensors"))
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("name", ["delta", "anchor"])
def test_the_result_comes_last(local: Store, name: str) -> None:
    obstacle = in_the_way(local, name)
    with pytest.raises(StoreError, match=obstacle.name):
        local.publish(TASK, FILES, RESULT)
    assert local.result(TASK) is None and local.results() == []
    obstacle.rmdir()
    local.publish(TASK, FILES, RESULT)
    assert all(local.read_file(TASK, stem) for stem in ("delta", "anchor"))


def test_a_failed_write_leaves_nothing_behind(local: Store) -> None:
    obstacle = in_the_way(local, "delta")
    with pytest.raises(StoreError, match=obstacle.name):
        local.publish(TASK, FILES, RESULT)
    assert list(obstacle.parent.iterdir()) == [obstacle]


def test_a_failed_write_leaves_the_old_file(local: Store) -> None:
    local.write("a", b"old")
    with pytest.raises(TypeError):
        local.write("a", "text")  # type: ignore[arg-type]
    assert local.read("a") == b"old" and everything(local) == {"a"}


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    assert os.umask(before) == request.param  # a write puts it back


def test_files_are_as_readable_as_the_umask_allows(local: Store, umask: int) -> None:
    local.write("a", b"x")
    assert stat.S_IMODE(Path(local.path("a")).stat().st_mode) == 0o666 & ~umask


def test_a_folder_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run [1]*"))
    store.publish(TASK, FILES, RESULT)
    assert len(store.results()) == 1
