"""Starting a local Ray or joining a cluster, safely, and what a gang may ask of it."""

import contextlib
import ipaddress
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from advanchor.runtime.drive import ClusterError
from advanchor.runtime.gang import GangShape
from advanchor.spec import Resources

TOKEN_FILE = Path("~/.ray/auth_token")


def is_loopback(address: str) -> bool:
    host = address.split("://")[-1].rpartition(":")[0].strip("[]") or address
    if host in ("localhost", "auto", "local"):
        return True
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, ValueError):
        return False


def check_token(address: str | None, *, allow_without_token: bool) -> None:
    """Raises ClusterError if the address is another machine's and no token authentication is set up."""
    safe = not address or is_loopback(address) or os.environ.get("RAY_AUTH_MODE") == "token"
    if not safe and not allow_without_token:
        raise ClusterError(
            f"{address} is on another machine and RAY_AUTH_MODE is not 'token': whoever reaches the cluster could "
            "run code on it. Set RAY_AUTH_MODE=token, or pass --insecure-no-token if the network is really closed"
        )


@contextlib.contextmanager
def connected(address: str | None = None, *, allow_without_token: bool = False) -> Iterator[None]:
    """Ray inside this block: a local one of its own, or the cluster at `address` (or RAY_ADDRESS).

    Raises ClusterError if the address is another machine's and no token authentication is set up.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    check_token(address, allow_without_token=allow_without_token)
    options: dict[str, Any] = (
        {"address": address}
        if address
        else {"address": "local", "include_dashboard": False, "num_cpus": os.cpu_count()}  # not whatever runs here
    )
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with tempfile.TemporaryDirectory(prefix="advanchor-") as empty:
        # Ray puts the driver's current folder first on every worker's sys.path, so that a yaml.py lying there would be
        # imported by the workers: connect from an empty folder. It stays until the end, for Ray's processes work in it.
        with contextlib.chdir(empty):
            try:
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, namespace="advanchor")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ClusterError(f"Ray cannot be reached at {address or 'this machine'}: {error}") from error
        token = TOKEN_FILE.expanduser()
        if token.exists():
            token.chmod(0o600)  # Ray writes it readable for everyone
        try:
            yield
        finally:
            ray.shutdown()


def gang_shape(resources: Resources, cluster: Mapping[str, float]) -> GangShape:
    """The bundles of one gang: GPUs where they are asked for or the cluster has any, CPU processes elsewhere."""
    on_gpu = cluster.get("GPU", 0) > 0 if resources.device == "auto" else resources.device == "gpu"
    share = 1.0 if resources.gpus_per_task == "auto" else min(1.0, resources.gpus_per_task)
    bundle: dict[str, float] = {"CPU": resources.cpus_per_rank} | ({"GPU": share} if on_gpu else {})
    return GangShape(resources.ranks, bundle)


def capacity(shape: GangShape) -> int:
    """How many gangs the nodes that are there now hold together."""
    return sum(shape.fits(node["Resources"]) for node in ray.nodes() if node["Alive"])


def number_of_gangs(resources: Resources, shape: GangShape) -> int:
    """How many gangs there may be now: those asked for, or as many as there is room for."""
    return capacity(shape) if resources.gangs == "auto" else int(resources.gangs)


def check_room(resources: Resources, shape: GangShape) -> str:
    """A note where the cluster has to grow first. Raises ClusterError if there is no room and no more is asked for."""
    if capacity(shape):
        return ""
    nodes = "; ".join(
        ", ".join(f"{name} {node['Resources'].get(name, 0):g}" for name in ("CPU", "GPU"))
        for node in ray.nodes()
        if node["Alive"]
    )
    missing = f"no node can hold a gang of {shape}; nodes: {nodes}"
    if resources.gangs != "auto":
        return f"{missing}. Waiting for an autoscaler to add nodes"
    raise ClusterError(
        f"{missing}. Lower resources.gpus_per_task or resources.cpus_per_rank, or set resources.gangs to a number so "
        "that an autoscaler adds nodes"
    )
