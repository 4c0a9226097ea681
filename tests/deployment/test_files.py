"""cluster/ and launch/: programs take the files, and the files agree with each other and with the program."""

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import typer
import yaml

import advanchor
from advanchor.batch.file import parse_batch
from advanchor.cli import app

from .rooms import (
    ALL_PODS,
    CLUSTER,
    FILES,
    JOB,
    MANIFESTS,
    RAY_UP,
    ROOT,
    SCHEMA,
    SCRIPTS,
    name,
    objects,
    pinned,
)

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


def test_hadolint_takes_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", ROOT / "cluster/Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


# `advanchor erase ...` as it stands in code, or behind a quote, a backtick, --, an image's tag or `entrypoint:`
COMMAND = re.compile(r"(?:^ *|['`\"]|exec |-- |:[0-9.]+ |entrypoint: )advanchor ([a-z]+)((?: [^`\n]*)?)", re.M)


def test_every_command_exists() -> None:
    group: Any = typer.main.get_command(app)
    commands = group.commands
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
    read = parse_batch(objects(MANIFESTS[2])["ConfigMap"]["data"]["batch.yaml"], Path("batch.yaml"))
    spec, concepts = read.spec, read.concepts
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
