"""A real Ray cluster for the tests of a process: a head, two nodes of two CPUs, and an S3 server that they reach."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import short_runs as runs
from moto.server import ThreadedMotoServer
from order import CLUSTER
from patience import PATIENCE_S
from recorder import VARIABLES, Recorder

from advanchor.runtime.ray_cluster import connected
from advanchor.runtime.rehearsal import RehearsalCluster, rehearsal
from advanchor.runtime.tokens import read_again

HERE = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return probe.getsockname()[1]


class Storage:
    """An S3 server that can fail; what is in it outlives a failure."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self.server = ThreadedMotoServer(HERE, self.port, verbose=False)
        self.server.start()

    def stop(self) -> None:
        self.server.stop()


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """The environment says where it is, to this process and to all that it starts."""
    server = Storage()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{HERE}:{server.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture(scope="session")
def whole_cluster(
    storage: Storage, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[RehearsalCluster]:
    with ExitStack() as stack:
        pytestconfig.stash[CLUSTER] = stack
        yield stack.enter_context(new_cluster(tmp_path_factory))


@contextmanager
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PATH", f"{Path(runs.sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        for pace in ("TICK_S", "VIEW_S"):  # faults strike tasks that last a second
            patch.setattr(f"advanchor.runtime.driver.{pace}", 0.05)
        patch.setattr("advanchor.runtime.rehearsal.BALANCE_S", PATIENCE_S)
        with rehearsal(nodes=2, cpus=2, dashboard_port=free_port()) as cluster, connected(cluster.address):
            yield cluster


@pytest.fixture
def cluster(whole_cluster: RehearsalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[RehearsalCluster]:
    """The cluster, which must be as it was when the test is over; commands find it by RAY_ADDRESS."""
    monkeypatch.setenv("RAY_ADDRESS", whole_cluster.address)
    yield whole_cluster
    whole_cluster.mend()
    assert whole_cluster.imbalance() == {}
    assert whole_cluster.leftovers() == []


@pytest.fixture(scope="session")
def undisturbed_run(
    whole_cluster: RehearsalCluster, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> runs.Store:
    """Of every concept, and nothing happens to it."""
    batch = runs.write_batch(tmp_path_factory.mktemp("undisturbed"), tiny_base, runs.NAMES)
    assert runs.drive(batch).exit_code == 0
    return runs.store_of(batch)


@pytest.fixture(scope="session")
def undisturbed(undisturbed_run: runs.Store) -> dict[str, str]:
    """The sha256 of every concept's delta."""
    found = runs.deltas(undisturbed_run)
    assert len(set(found.values())) == len(runs.NAMES)
    return found


@pytest.fixture(scope="session")
def task_seconds(undisturbed_run: runs.Store) -> float:
    """How long a task takes here and now."""
    return max(sum(result["seconds"].values()) for result in undisturbed_run.results())


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No variable says anything, and the home has no token."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bare-home").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(tmp_path / "bare-home"))
        yield
    monkeypatch.undo()
    read_again()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    server = Recorder()
    yield server
    server.close()
