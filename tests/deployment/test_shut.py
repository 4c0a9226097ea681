"""cluster/ and launch/ open no door: no secret in a file, a token everywhere, nobody is root."""

import re
from pathlib import Path

import pytest

from .rooms import ALL_PODS, CLUSTER, FILES, JOB, MANIFESTS, RAY_UP, ROOT, SCRIPTS, name, objects

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
