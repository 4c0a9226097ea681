"""What a run on this machine opens: loopback only, nothing without the token, and a token that others cannot read."""

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import requests
import short_runs as runs
from patience import PATIENCE_S, wait_until

from advanchor.runtime.addresses import is_loopback
from advanchor.runtime.tokens import make_token

METHODS = (  # one of each service that could be made to work for a stranger
    "NodeInfoGcsService/GetAllNodeInfo", "CoreWorkerService/Exit", "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Pull", "ReporterService/GetTraceback",
)  # fmt: skip
RAYS_OWN = ("gcs_server", "raylet", "ray::DashboardAgent", "ray::Rank")


@dataclass(frozen=True)
class Port:
    process: str
    ip: str
    number: int

    @property
    def host(self) -> str:
        return self.ip.removeprefix("::ffff:")

    def grpc_codes(self) -> set[str]:
        """What it answers to one who has no token."""
        with grpc.insecure_channel(f"127.0.0.1:{self.number}", options=(("grpc.enable_http_proxy", 0),)) as channel:
            codes = set()
            for method in METHODS:
                try:
                    channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=PATIENCE_S)
                    codes.add("OK")
                except grpc.RpcError as error:
                    codes.add(error.code().name)
        return codes

    def http_status(self, path: str) -> int:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://127.0.0.1:{self.number}{path}", timeout=PATIENCE_S).status_code


def listening(process: psutil.Process) -> list[Port]:
    """What a process and all that it has started listen on, whatever the protocol."""
    found = []
    for each in [process, *process.children(recursive=True)]:
        try:
            name, connections = each.name(), each.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        found += [Port(name, c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN]
    return found


def sockets(process: psutil.Process) -> set[Path]:
    """The unix sockets that a process and all that it has started hold by name."""
    found: set[Path] = set()
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {Path(name) for c in each.net_connections("unix") if (name := str(c.laddr)).startswith("/")}
    return found


@pytest.fixture(scope="module")
def at_work(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    """The driver of a run whose gang of two ranks is at work, where RAY_AUTH_MODE says that no token is asked for."""
    folder = tmp_path_factory.mktemp("closed")
    batch = runs.write_batch(folder, tiny_base, runs.NAMES[:1], gpus_per_task=2)
    content = json.loads(batch.read_text())
    content["method"]["steps"] = 100_000  # nobody waits for the end
    batch.write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_num_prestart_python_workers", "0")
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.delenv("RAY_TMPDIR", raising=False)
        patch.delenv("RAY_worker_niceness", raising=False)
        process = runs.start(folder, "erase", str(batch))
    try:
        wait_until(lambda: process.poll() is not None or is_training(folder), "training")
        assert process.poll() is None, process.communicate()
        yield psutil.Process(process.pid)
    finally:
        for each in psutil.Process(process.pid).children(recursive=True):
            each.kill()
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def ports(at_work: psutil.Process) -> list[Port]:
    return listening(at_work)


def test_its_sockets_and_logs_are_for_its_user_only(at_work: psutil.Process) -> None:
    """Ray would put them into /tmp/ray, which it opens to everybody."""
    found = sockets(at_work)
    assert {"raylet", "plasma_store"} <= {socket.name for socket in found}
    for socket in found:
        assert any(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in socket.parents[:-1]), socket


def is_training(folder: Path) -> bool:
    status = folder / "run/status.json"
    return status.exists() and any(row["step"] > 1 for row in json.loads(status.read_text())["tasks"])


def test_a_run_listens_on_loopback_only(ports: list[Port]) -> None:
    assert {"gcs_server", "raylet", "ray::DashboardAgent"} <= {port.process for port in ports}
    assert sum(port.process.startswith("ray::Rank") for port in ports) >= 4  # of each Ray's own, and gloo's
    assert [port for port in ports if not is_loopback(port.host)] == []


def test_every_port_that_could_do_something_asks_for_the_token(ports: list[Port]) -> None:
    """Ray's gRPC listens for IPv6 too; the rest are pages, and in the ranks gloo's protocol."""
    speaking = {port: port.grpc_codes() for port in ports if "::" in port.ip}
    for name in RAYS_OWN:
        assert any(port.process.startswith(name) for port in speaking), (name, speaking)
    assert set().union(*speaking.values()) == {"UNAUTHENTICATED", "UNIMPLEMENTED"}
    assert all("UNAUTHENTICATED" in codes for codes in speaking.values())


def test_pages_without_a_token_are_figures_only(ports: list[Port]) -> None:
    pages = [port for port in ports if "::" not in port.ip and not port.process.startswith("ray::Rank")]
    # three more have fixed numbers, which another Ray on this machine may hold
    assert {"ray::DashboardAgent", "ray::RuntimeEnvAgent"} <= {port.process for port in pages}
    for port in pages:
        figures_of_load = port.http_status("/metrics") == 200
        assert figures_of_load or port.http_status("/api/job_agent/jobs/") == 401, port


def test_the_workers_are_as_nice_as_their_driver(at_work: psutil.Process) -> None:
    """Ray's own 15 would let them starve beside other work."""
    ranks = [each for each in at_work.children(recursive=True) if each.name().startswith("ray::Rank")]
    assert len(ranks) == 2 and {rank.nice() for rank in ranks} == {at_work.nice()}


def test_prometheus_reads_the_run_from_ray(ports: list[Port]) -> None:
    agents = [port for port in ports if port.process == "ray::DashboardAgent" and "::" not in port.ip]
    wanted = (
        r'^ray_advanchor_tasks\{[^}]*run="run"[^}]*state="running"[^}]*\} 1\.0$',
        r'^ray_advanchor_attempts\w*\{[^}]*run="run"[^}]*\} 1\.0$',
    )

    def seen() -> bool:
        page = "\n".join(map(figures, agents))
        return all(re.search(line, page, re.M) for line in wanted)

    wait_until(seen, "a running task and its attempt among the figures")


def figures(port: Port) -> str:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"http://127.0.0.1:{port.number}/metrics", timeout=PATIENCE_S)
        return answer.text if answer.ok else ""


# --- the token's file

WATCHED = """
import os, stat, sys
folder, seen = os.path.expanduser("~/.ray"), set()
def look(event, arguments):
    if event in ("open", "os.chmod", "os.rename", "os.link", "os.remove", "subprocess.Popen"):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            try:
                state = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if "auth_token" in name:
                seen.add((event == "subprocess.Popen", stat.S_IMODE(state.st_mode)))
from advanchor.runtime.ray_cluster import connected
os.umask(0)
sys.addaudithook(look)
try:
    with connected():
        print("started")
finally:
    print(sorted(seen))
"""


def start_ray(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own that says which modes the token's file had, and whether it started others meanwhile."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "RAY_AUTH_MODE": "disabled", **variables}
    command = [sys.executable, "-c", WATCHED]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=PATIENCE_S)


def token(home: Path, mode: int) -> Path:
    file = home / ".ray/auth_token"
    file.parent.mkdir()
    file.write_text("made for this test, and long enough to be a token")
    file.chmod(mode)
    return file


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_the_token_is_never_readable_by_others(tmp_path: Path) -> None:
    """Not for a moment, even where the umask would let them."""
    done = start_ray(tmp_path)
    assert done.stdout.splitlines() == ["started", "[(False, 384), (True, 384)]"], done.stderr
    assert mode_of(tmp_path / ".ray/auth_token") == 0o600 and mode_of(tmp_path / ".ray") == 0o700
    assert [file.name for file in (tmp_path / ".ray").iterdir()] == ["auth_token"]


def test_a_token_that_others_could_read_is_closed_before_ray_starts(tmp_path: Path) -> None:
    file = token(tmp_path, 0o644)
    before = file.read_text()
    done = start_ray(tmp_path)
    assert "started" in done.stdout and "(True, 420)" not in done.stdout and "(True, 384)" in done.stdout, done
    assert mode_of(file) == 0o600 and file.read_text() == before


@pytest.mark.parametrize("there", [False, True])
def test_the_token_is_closed_where_ray_does_not_start(there: bool, tmp_path: Path) -> None:
    """Ray's sockets have paths of at most 107 bytes."""
    file = token(tmp_path, 0o644) if there else tmp_path / ".ray/auth_token"
    (deep := tmp_path / ("deep" * 30)).mkdir()
    done = start_ray(tmp_path, RAY_TMPDIR=str(deep))
    assert "started" not in done.stdout and "(True, 420)" not in done.stdout
    assert re.search(
        r"^advanchor.runtime.errors.ClusterError: Ray does not start on this machine: .*$", done.stderr, re.M
    )
    assert mode_of(file) == 0o600


def test_a_start_that_fails_is_one_line(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (deep := tmp_path / ("deep" * 30)).mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    process = runs.start(tmp_path, "erase", str(runs.write_batch(tmp_path, tiny_base)))
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2, output + errors
    assert re.fullmatch(r"error: Ray does not start on this machine: .+\n", errors)


def test_programs_that_start_at_once_use_one_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them ever sees half of it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    file, seen, go = tmp_path / ".ray/auth_token", set(), threading.Barrier(16)

    def begin() -> None:
        go.wait()
        make_token()
        seen.add(file.read_text())

    threads = [threading.Thread(target=begin) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1 and re.fullmatch(r"[0-9a-f]{64}", seen.pop())
    assert list(file.parent.iterdir()) == [file]


def test_a_token_of_nothing_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = token(tmp_path, 0o644)
    file.write_text("\n")
    make_token()
    assert len(file.read_text()) == 64 and mode_of(file) == 0o600
