"""Storage that is full, that fails for a while, that stays away, or that nodes do not see."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import short_runs as runs
from conftest import Storage
from patience import PATIENCE_S

from advanchor.rundir.storage import Files, StoreError
from advanchor.runtime.errors import ClusterError
from advanchor.runtime.rehearsal import RehearsalCluster

Deltas = dict[str, str]


@pytest.fixture
def bucket(storage: Storage, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "run-" + request.node.name.replace("_", "-")[:40].strip("-")
    fsspec.filesystem("s3").mkdir(name)
    yield f"s3://{name}"
    storage.stop()
    storage.start()  # whatever a test has left it as


# --- patience


def test_a_write_waits_for_storage_that_comes_back(storage: Storage, bucket: str) -> None:
    files = Files(f"{bucket}/run", patience_s=PATIENCE_S)
    files.write("a", b"before")
    storage.stop()
    back = threading.Timer(2, storage.start)
    back.start()
    files.write("a", b"after")
    back.join()
    assert files.read("a") == b"after"


def test_patience_ends(storage: Storage, bucket: str) -> None:
    files = Files(f"{bucket}/run", patience_s=0.5)
    files.write("a", b"x")
    storage.stop()
    for act in (lambda: files.write("a", b"y"), lambda: files.read("a"), lambda: files.find("*")):
        with pytest.raises(StoreError, match=rf"^storage: .*{bucket[5:]}/run"):
            act()
    storage.start()
    assert files.read("a") == b"x"


def test_many_files_are_read_at_once_and_those_that_vanish_are_left_out(bucket: str) -> None:
    files = Files(f"{bucket}/run [1]*")
    for name in ("a", "b"):
        files.write_json(f"x/{name}.json", name)
    assert files.find("x", "*.json") == ["x/a.json", "x/b.json"]
    assert files.read_many(["x/a.json", "x/gone.json", "x/b.json"]) == {"x/a.json": "a", "x/b.json": "b"}
    assert files.read_many([]) == {} and files.find("y", "*") == [] and files.read("x/gone.json") is None


# --- a full disk

FILL = """
mount -t tmpfs -o size={size}k none {disk} || exit 77
{command}
code=$?
cp -r {disk}/run {copy}
exit $code
"""


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(tiny_base: Path, tmp_path: Path) -> None:
    """The disk holds the first results and not the last; what it held goes on elsewhere."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    batch = runs.write_batch(tmp_path, tiny_base, runs.NAMES, output=str(disk / "run"))
    command = " ".join([*runs.COMMAND, "erase", str(batch), "--local"])
    script = FILL.format(size=200, disk=disk, command=command, copy=copy)
    if not shutil.which("unshare"):
        pytest.skip("a full disk is a small tmpfs, mounted by unshare, which this machine does not have")
    process = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    if "unshare:" in process.stderr or process.returncode == 77:
        pytest.skip(f"a full disk is a small tmpfs, which this machine does not let users mount: {process.stderr}")
    assert process.returncode == 1, process.stdout + process.stderr
    assert "No space left on device" in process.stderr and "what is done is kept" in process.stderr
    assert not list(copy.rglob(".*"))  # no half-written files

    store = runs.Store(str(copy))
    first = runs.deltas(store)
    assert 1 <= len(first) < len(runs.NAMES)
    before = {path: path.stat().st_mtime_ns for path in copy.glob("tasks/*/result.json")}
    runs.run(tmp_path, "resume", str(copy), "--local")
    assert runs.deltas(store).items() >= first.items() and len(runs.deltas(store)) == len(runs.NAMES)
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())


# --- whole runs


def test_a_whole_run_on_s3(
    cluster: RehearsalCluster, bucket: str, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, output=f"{bucket}/run")
    runs.run(tmp_path, "erase", str(batch))
    store = runs.store_of(batch)
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}
    assert "cat" in runs.command("status", store.url) and "dog" in runs.command("logs", store.url)
    assert "cat" in runs.command("results", store.url, "--format", "csv")
    assert store.read("report/index.html")


def test_storage_that_fails_for_a_while_holds_the_run_up(
    cluster: RehearsalCluster, storage: Storage, bucket: str, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, output=f"{bucket}/run")
    back = threading.Timer(6, storage.start)

    def strike() -> None:
        storage.stop()
        back.start()

    fault = runs.WhenTraining(cluster, strike)
    assert runs.drive(batch, fault).exit_code == 0 and fault.struck
    back.join()
    store = runs.store_of(batch)
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}
    assert runs.events(store, "cat") == ["Succeeded"]


def test_storage_that_stays_away_stops_the_run(
    cluster: RehearsalCluster, storage: Storage, bucket: str, undisturbed: Deltas, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, output=f"{bucket}/run", storage_patience_s=1)
    status = runs.drive(batch, runs.WhenTraining(cluster, storage.stop, "dog"))
    assert status.state == "stopped" and status.exit_code == 1 and status.note.startswith("storage: ")
    storage.start()
    store = runs.store_of(batch)
    assert runs.deltas(store) == {"cat": undisturbed["cat"]}
    assert runs.drive(batch).exit_code == 0
    assert runs.deltas(store) == {name: undisturbed[name] for name in ("cat", "dog")}
    assert runs.events(store, "cat") == ["Succeeded"]


def test_a_run_directory_that_nodes_do_not_see_is_found_out_at_the_start(
    cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path
) -> None:
    """Every process has a memory of its own."""
    batch = runs.write_batch(tmp_path, tiny_base, output=f"memory://{tmp_path}/run")
    with pytest.raises(ClusterError, match=rf"node {os.uname().nodename} .* does not see the run directory memory://"):
        runs.drive(batch)
    assert runs.attempts(runs.store_of(batch), "cat") == []
