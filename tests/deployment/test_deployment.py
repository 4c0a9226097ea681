"""cluster/ and launch/: programs take the files, the files agree with each other and the program, and are shut."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import ray
import typer
import yaml

import advanchor
from advanchor.cli import app
from advanchor.spec import parse_batch

ROOT = Path(__file__).parents[2]
ROOMS = [ROOT / "cluster", ROOT / "launch"]
FILES = sorted(path for room in ROOMS for path in room.iterdir() if path.is_file())
SCRIPTS = [path for path in FILES if path.read_text().startswith("#!/usr/bin/env bash")]
MANIFESTS = [ROOT / "cluster/raycluster.yaml", ROOT / "cluster/networkpolicy.yaml", ROOT / "launch/rayjob.yaml"]
SCHEMA = json.loads((Path(__file__).parent / "schemas/kubernetes.json").read_text())
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def objects(*paths: Path) -> dict[str, dict]:
    """The Kubernetes objects of some files by kind."""
    return {each["kind"]: each for path in paths for each in yaml.safe_load_all(path.read_text())}


def pinned(package: str) -> str:
    """The version that pyproject.toml pins."""
    (version,) = [match[1] for each in DEPENDENCIES if (match := re.fullmatch(rf"{package}(?:\[\w+\])?==(.+)", each))]
    return version


CLUSTER = objects(MANIFESTS[0])["RayCluster"]["spec"]
JOB = objects(MANIFESTS[2])["RayJob"]["spec"]
RAY_UP = yaml.safe_load((ROOT / "cluster/ray-up.yaml").read_text())


def pods(cluster: dict) -> list[dict]:
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


ALL_PODS = pods(CLUSTER) + pods(JOB["rayClusterSpec"])

# --- the files are what their programs take


@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_manifests_fit_the_schema(path: Path) -> None:
    for each in yaml.safe_load_all(path.read_text()):
        jsonschema.validate(each, SCHEMA)


@pytest.mark.parametrize(
    ("field", "value"), [("backofLimit", 2), ("backoffLimit", "2"), ("shutdownAfterJobFinishes", False)]
)
def test_the_schema_finds_mistakes(field: str, value: object) -> None:
    job = objects(MANIFESTS[2])["RayJob"]
    job["spec"][field] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, SCHEMA)


def test_ray_takes_the_cluster_definition() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    jsonschema.validate(RAY_UP, json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text()))
    validate_config(prepare_config(RAY_UP))


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_bash_takes_the_scripts(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & stat.S_IXUSR
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, "--severity=warning", path], check=True)


# `advanchor erase ...` as it stands in code, or behind a quote, a backtick, --, an image's tag or `entrypoint:`
COMMAND = re.compile(r"(?:^ *|['`\"]|exec |-- |:[0-9.]+ |entrypoint: )advanchor ([a-z]+)((?: [^`\n]*)?)", re.M)


def test_every_command_exists() -> None:
    commands = typer.main.get_command(app).commands
    calls = [(path, *match.groups()) for path in FILES for match in COMMAND.finditer(path.read_text())]
    assert {"launch/local.sh", "launch/ray-cluster.sh", "launch/slurm.sbatch", "launch/rayjob.yaml"} <= {
        name(path) for path, *_ in calls
    }
    for path, command, arguments in calls:
        assert command in commands, f"{name(path)}: advanchor {command}"
        known = {option for parameter in commands[command].params for option in parameter.opts}
        for option in re.findall(r"(?<= )(--?[a-z][a-z-]*)", arguments.split("#")[0]):
            assert option in known, f"{name(path)}: advanchor {command} {option}"


# --- they agree with each other and with the program


def test_both_kubernetes_files_make_the_same_cluster() -> None:
    job = json.loads(json.dumps(JOB["rayClusterSpec"]))
    head = job["headGroupSpec"]["template"]["spec"]
    head["volumes"] = [volume for volume in head["volumes"] if volume["name"] != "batches"]
    mounts = head["containers"][0]["volumeMounts"]
    head["containers"][0]["volumeMounts"] = [mount for mount in mounts if mount["name"] != "batches"]
    assert job == CLUSTER


def test_the_jobs_batch_is_one_and_lands_on_the_shared_volume() -> None:
    spec, concepts = parse_batch(objects(MANIFESTS[2])["ConfigMap"]["data"]["batch.yaml"], Path("batch.yaml"))
    (worker,) = JOB["rayClusterSpec"]["workerGroupSpecs"]
    assert len(concepts) > 20
    assert spec.output.startswith("/runs/")
    assert spec.resources.gangs == worker["maxReplicas"]


def test_every_mount_has_its_volume_and_shared_memory_is_memory() -> None:
    for pod in ALL_PODS:
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        paths = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        assert paths["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        assert paths["/runs"]["persistentVolumeClaim"]["claimName"] == "advanchor-runs"
    for path in (MANIFESTS[0], MANIFESTS[2]):
        assert objects(path)["PersistentVolumeClaim"]["metadata"]["name"] == "advanchor-runs"


def test_versions_are_the_projects() -> None:
    assert f"torch=={pinned('torch')}" in (ROOT / "cluster/Dockerfile").read_text()
    for cluster in (CLUSTER, JOB["rayClusterSpec"]):
        assert cluster["rayVersion"] == pinned("ray")
    for path in FILES:
        text = path.read_text()
        assert set(re.findall(r"ray\[default\]==([\d.]+)", text)) <= {pinned("ray")}, name(path)
        assert set(re.findall(r"/advanchor:([\w.]+)", text)) <= {advanchor.__version__}, name(path)


def test_every_image_is_pinned() -> None:
    images = [pod["spec"]["containers"][0]["image"] for pod in ALL_PODS] + [RAY_UP["docker"]["image"]]
    images += re.findall(r"^ARG BASE=(.+)", (ROOT / "cluster/Dockerfile").read_text(), re.M)
    assert len(images) == 6
    for image in images:
        assert re.search(r":\d+\.\d+\.\d+", image), image


def test_every_file_says_what_it_needs_and_whether_it_was_run() -> None:
    for path in FILES:
        assert path.suffix == ".md" or path.name in (path.parent / "README.md").read_text(), name(path)
        if path.suffix in (".yaml", ".sbatch", ".sh") or path.name == "Dockerfile":
            opening = path.read_text().split("\n\n")[0]
            assert "# Needs:" in path.read_text() and "Checked " in path.read_text(), name(path)
            assert opening.count("#") > 2, name(path)


# --- they are shut

SECRET = re.compile(r"RAY_AUTH_TOKEN=\S|stringData|auth_token: *(?!~)\S|\b[0-9a-f]{32,}\b|hf_\w{20,}|AKIA\w{16}")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_secret_and_no_open_door_in_a_file(path: Path) -> None:
    text = path.read_text()
    assert not SECRET.search(text)
    assert "0.0.0.0" not in text
    for start in re.findall(r"ray start --head.*", text):
        assert "--dashboard-host=127.0.0.1" in start


def test_a_token_is_asked_for_everywhere() -> None:
    for cluster in (CLUSTER, JOB["rayClusterSpec"]):
        assert cluster["authOptions"] == {"mode": "token"}
    assert "--env RAY_AUTH_MODE=token" in RAY_UP["docker"]["run_options"]
    assert "~/.ray/auth_token" in RAY_UP["file_mounts"].values()
    for path in SCRIPTS:
        assert re.search(r"^export RAY_AUTH_MODE=token", path.read_text(), re.M), name(path)


def test_kubernetes_shows_the_dashboard_to_nobody() -> None:
    for cluster in (CLUSTER, JOB["rayClusterSpec"]):
        assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert cluster["headGroupSpec"]["enableIngress"] is False


def test_the_policy_covers_every_pod_and_lets_others_only_to_the_dashboards_port() -> None:
    policy = objects(MANIFESTS[1])["NetworkPolicy"]["spec"]
    ours = policy["podSelector"]["matchLabels"].items()
    assert all(ours <= pod["metadata"]["labels"].items() for pod in ALL_PODS)
    among_us, others = policy["ingress"]
    assert among_us == {"from": [{"podSelector": policy["podSelector"]}]}
    assert others["ports"] == [{"protocol": "TCP", "port": 8265}]
    submitter = {"batch.kubernetes.io/job-name": objects(MANIFESTS[2])["RayJob"]["metadata"]["name"]}
    assert others["from"][0] == {"podSelector": {"matchLabels": submitter}}
    assert all(peer["podSelector"]["matchLabels"] for peer in others["from"])


def test_no_pod_runs_as_root() -> None:
    for pod in ALL_PODS:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        security = pod["spec"]["containers"][0]["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert re.search(r"^USER 1000$", (ROOT / "cluster/Dockerfile").read_text(), re.M)


# --- they run

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
            timeout=300,
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
    deadline = time.time() + 60
    while left := processes_with(text):
        assert time.time() < deadline, left
        time.sleep(0.2)


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
    run: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 300}
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
