"""Starting a local Ray or joining a cluster, safely, and what a gang may ask of it."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import services

from advanchor.batch.spec import Resources
from advanchor.runtime.addresses import FOUND, LOCAL, Target, cluster_target, refuse_without_token
from advanchor.runtime.errors import ClusterError
from advanchor.runtime.gang import GangShape
from advanchor.runtime.tokens import closed, environment, has_token, keep_token_private, read_again


def find_ray(address: str | None) -> str:
    """The host:port of a Ray that runs on this machine, as Ray finds it for "auto" or None; variables do not count."""
    with environment(RAY_ADDRESS=None):
        services.find_gcs_addresses.cache_clear()
        try:
            return services.canonicalize_bootstrap_address_or_die(address)  # type: ignore[arg-type] # it may be None
        except (ConnectionError, ValueError) as error:
            raise ClusterError(f"no Ray runs on this machine: {first_line(error)}") from error


def own_addresses() -> set[str]:
    """What Ray calls this machine when it starts on it."""
    return {services.get_node_ip_address()}


def check(target: Target, *, allow_without_token: bool) -> None:
    """Raises ClusterError for a target off this machine without RAY_AUTH_MODE=token and a token."""
    if not target.stays:
        mode = os.environ.get("RAY_AUTH_MODE", "")
        refuse_without_token(target, mode=mode, has_token=has_token(), allow_without_token=allow_without_token)


def allowed(address: str | None = None, *, allow_without_token: bool = False) -> Target:
    """Where `connected` would go. Raises ClusterError if it may not; nothing is sent."""
    read_again()
    target = cluster_target(address, os.environ, lambda: find_ray("auto"), own_addresses())
    check(target, allow_without_token=allow_without_token)
    return target


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def connected(address: str | None = None, *, allow_without_token: bool = False) -> Iterator[None]:
    """Ray inside this block: a local one of its own, or the cluster at `address` (or RAY_ADDRESS).

    Raises ClusterError if Ray does not start or answer, and before anything is sent if the cluster is not on this
    machine and there is no token. A local Ray asks for the token and listens on loopback, whatever RAY_AUTH_MODE says.
    """
    target = allowed(address, allow_without_token=allow_without_token)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray puts the driver's current folder first on every worker's sys.path, so that a yaml.py lying there would be
    # imported by the workers: connect from an empty folder. It stays until the end, for Ray's processes work in it.
    with (
        tempfile.TemporaryDirectory(prefix="advanchor-") as empty,
        private_folder() as folder,
        contextlib.chdir(empty),
        closed() if target.is_local else joining(target),
    ):
        try:
            ray.init(**options(target, folder), log_to_driver=False, logging_level=logging.ERROR, namespace="advanchor")
        except Exception as error:  # a start that takes too long is a plain Exception
            where = "does not start on this machine" if target.is_local else f"cannot be reached at {target.address}"
            raise ClusterError(f"Ray {where}: {first_line(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def private_folder() -> Iterator[str]:
    """For a local Ray's sockets, objects and logs: RAY_TMPDIR, or a folder for its user only, which goes with the run.

    Ray's own, /tmp/ray, is open to all users of the machine. A socket's path has at most 107 bytes: TMPDIR has no say.
    """
    if told := os.environ.get("RAY_TMPDIR"):
        yield told
        return
    with tempfile.TemporaryDirectory(prefix="adv-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield str(Path(folder) / "ray")  # Ray opens the folder that it is told to everybody


def options(target: Target, folder: str) -> dict[str, Any]:
    """Of ray.init. The address is always given, so that no variable has a say in it any more."""
    if not target.is_local:
        return {"address": target.address}
    cpus = os.cpu_count()
    return {
        "address": LOCAL,
        "include_dashboard": False,
        "num_cpus": cpus,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
    }


@contextlib.contextmanager
def joining(target: Target) -> Iterator[None]:
    """As Ray does for a cluster that it has found by itself: with the token if there is one, and nothing was said."""
    keep_token_private()
    found_here = target.source == FOUND and "RAY_AUTH_MODE" not in os.environ and has_token()
    with environment(**{"RAY_AUTH_MODE": "token"} if found_here else {}):
        yield


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
