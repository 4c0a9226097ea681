"""Starting a local Ray or joining a cluster, safely, and what a gang may ask of it."""

import contextlib
import ipaddress
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray

from advanchor.runtime.gang import GangShape
from advanchor.spec import Resources

TOKEN_FILE = Path("~/.ray/auth_token")


class ClusterError(RuntimeError):
    """A cluster that cannot be joined, or that can never hold one gang."""


def is_loopback(address: str) -> bool:
    host = address.split("://")[-1].rpartition(":")[0].strip("[]") or address
    if host in ("localhost", "auto", "local"):
        return True
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def connected(address: str | None = None, *, allow_without_token: bool = False) -> Iterator[None]:
    """Ray inside this block: a local one of its own, or the cluster at `address` (or RAY_ADDRESS).

    Raises ClusterError if the address is another machine's and no token authentication is set up.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address and not is_loopback(address) and os.environ.get("RAY_AUTH_MODE") != "token" and not allow_without_token:
        raise ClusterError(
            f"{address} is on another machine and RAY_AUTH_MODE is not 'token': whoever reaches the cluster could "
            "run code on it. Set RAY_AUTH_MODE=token, or pass --insecure-no-token if the network is really closed"
        )
    options = {"address": address} if address else {"include_dashboard": False, "num_cpus": os.cpu_count()}
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


def gang_shape(resources: Resources, cluster: dict[str, float]) -> GangShape:
    """The bundles of one gang: GPUs where the cluster has any, CPU processes elsewhere."""
    amount = 1.0 if resources.gpus_per_task == "auto" else resources.gpus_per_task
    bundle: dict[str, float] = {"CPU": resources.cpus_per_rank}
    if cluster.get("GPU", 0) > 0:
        bundle["GPU"] = min(1.0, amount)
    return GangShape(max(1, round(amount)), bundle)


def capacity(shape: GangShape) -> int:
    """How many gangs the nodes that are there now hold together."""
    return sum(shape.fits(node["Resources"]) for node in ray.nodes() if node["Alive"])


def number_of_gangs(resources: Resources, shape: GangShape, num_tasks: int) -> int:
    """How many gangs to ask for. Raises ClusterError if there is room for none and more nodes are not asked for."""
    room = capacity(shape)
    if resources.gangs != "auto":
        return min(int(resources.gangs), num_tasks)
    if room == 0:
        nodes = "; ".join(
            ", ".join(f"{name} {node['Resources'].get(name, 0):g}" for name in ("CPU", "GPU")) for node in ray.nodes()
        )
        asked = ", ".join(f"{name} {amount:g}" for name, amount in shape.bundle.items())
        raise ClusterError(
            f"no node can hold a gang of {shape.ranks} x ({asked}); nodes: {nodes}. Lower resources.gpus_per_task or "
            "resources.cpus_per_rank, or set resources.gangs to a number so that an autoscaler adds nodes"
        )
    return min(room, num_tasks)
