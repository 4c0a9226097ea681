"""launch/ and cluster/ run: scripts with a stand-in for the program, rehearsals on a real Ray."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from patience import PATIENCE_S, wait_until

from .rooms import ROOT

REPORT = """
token=$(stat -c %a "${RAY_AUTH_TOKEN_PATH-}" 2>/dev/null)
printf '%s\\n' "mode=${RAY_AUTH_MODE-}" "token=$token" "address=${RAY_ADDRESS-}" "arguments=$*" >"$REPORT"
exit 1
"""


@dataclass(frozen=True)
class Shell:
    """Runs a script with a stand-in for advanchor, which notes what it was given and says that some concepts failed."""

    folder: Path

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.stand_in("advanchor", REPORT)
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        ours = {"PATH": path, "HOME": str(self.folder), "REPORT": str(self.folder / "report")}
        return subprocess.run(
            [ROOT / "launch" / script, *arguments],
            env=kept | ours | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def stand_in(self, command: str, body: str) -> None:
        file = self.folder / "bin" / command
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\n{body}")
        file.chmod(0o755)

    def given(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.folder / "report").read_text().splitlines())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_local_leaves_clusters_alone(shell: Shell) -> None:
    assert shell.run("local.sh").returncode == 2
    done = shell.run("local.sh", "a b.yaml", "--set", "seed=1", RAY_ADDRESS="10.0.0.5:6379")
    assert done.returncode == 1
    assert shell.given() == {
        "mode": "token",
        "token": "",
        "address": "",
        "arguments": "erase a b.yaml --set seed=1",
    }


def test_ray_cluster_wants_an_address_and_a_private_token(shell: Shell) -> None:
    assert "RAY_ADDRESS" in shell.run("ray-cluster.sh", "a.yaml").stderr
    address = {"RAY_ADDRESS": "10.0.0.5:6379"}
    assert "cannot be read" in shell.run("ray-cluster.sh", "a.yaml", **address).stderr
    token = shell.folder / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("made for this test")
    token.chmod(0o644)
    assert "chmod 600" in shell.run("ray-cluster.sh", "a.yaml", **address).stderr
    token.chmod(0o600)
    assert shell.run("ray-cluster.sh", "a.yaml", **address).returncode == 1
    assert shell.given()["mode"] == "token"
    assert shell.given()["arguments"] == "erase a.yaml --address 10.0.0.5:6379"


def processes_with(text: str) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline", "status"])
    return [each for each in found if text in " ".join(each.info["cmdline"] or ()) and each.info["status"] != "zombie"]


def wait_until_gone(text: str) -> None:
    wait_until(lambda: not processes_with(text), f"every process of {text} to end")


SRUN = """# the command once per node, all nodes on this machine
while [[ $1 == --* ]]; do shift; done
trap 'kill $(jobs -p)' TERM
for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do SLURM_NODEID=$i "$@" & done
wait
"""


def test_slurm_job_makes_a_cluster_runs_the_batch_and_leaves_nothing(shell: Shell) -> None:
    job = str(10000 + os.getpid() % 9000)  # the port follows from it
    shell.stand_in("srun", SRUN)
    try:
        done = shell.run("slurm.sbatch", "batch.yaml", SLURM_JOB_ID=job, SLURM_JOB_NUM_NODES="2")
        assert done.returncode == 1, done.stdout + done.stderr  # advanchor's own
        assert re.fullmatch(r"erase batch.yaml --address [\d.]+:\d+", shell.given()["arguments"])
        assert (shell.given()["mode"], shell.given()["token"]) == ("token", "600")
        assert not list((shell.folder / ".ray").iterdir())
        wait_until_gone(f"/tmp/ray-{job}")
    finally:
        shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


DRIVER = """
import os, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
nodes = [node for node in ray.nodes() if node["Alive"]]
print(sorted(node["NodeManagerAddress"] for node in nodes), ray.cluster_resources()["GPU"])
"""


def test_rehearsal_is_a_real_cluster_with_a_token(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="adv-", dir="/tmp"))  # short: Ray's sockets have paths of at most 107 bytes
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    rehearse = [sys.executable, ROOT / "cluster/rehearse.py"]
    environment = os.environ | {"TMPDIR": str(folder), "HOME": str(tmp_path)}
    run: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE_S}
    try:
        up = [*rehearse, "up", "--nodes", "2", "--gpus", "1", "--port", str(port), "--object-store-mb", "80"]
        started = subprocess.run(up, env=environment, **run)
        assert started.returncode == 0, started.stderr
        access = dict(re.findall(r"export (\w+)=(.+)", started.stdout))
        token = Path(access["RAY_AUTH_TOKEN_PATH"])
        assert (stat.S_IMODE(token.stat().st_mode), stat.S_IMODE(token.parent.stat().st_mode)) == (0o600, 0o700)
        driver = subprocess.run([sys.executable, "-c", DRIVER], env=environment | access, **run)
        assert driver.stdout == "['127.0.0.2', '127.0.0.3', '127.0.0.4'] 2.0\n", driver.stderr
        (wrong := tmp_path / "wrong").write_text("not the token")
        access["RAY_AUTH_TOKEN_PATH"] = str(wrong)
        stranger = subprocess.run([sys.executable, "-c", DRIVER], env=environment | access, **run)
        assert stranger.returncode != 0 and not stranger.stdout
    finally:
        subprocess.run([*rehearse, "down"], env=environment, check=True, **run)
    assert not list(folder.glob("advanchor-*"))
    wait_until_gone(str(folder))
    folder.rmdir()
