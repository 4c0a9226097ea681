"""What lies in cluster/ and launch/, read once for all tests."""

import json
import re
import tomllib
from pathlib import Path

import yaml

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
