"""A Ray cluster of several nodes on this machine, whose ranks and nodes can be killed: for tests and measurements.

Nothing here is used by runs. All processes are children of the one that opens the cluster, and end with it.
"""

import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psutil
import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

from advanchor.runtime.tokens import environment

NODE: dict[str, Any] = {"object_store_memory": 100 * 2**20, "dashboard_host": "127.0.0.1"}
HEAD_IP = "127.0.0.2"  # nodes come after it; Ray takes 127.0.0.1 for the machine's outer address
BALANCE_S = 60.0  # patience for resources to come back, and for processes to go, after a fault


class RehearsalCluster:
    """A head without resources, and nodes that offer them. Nodes may be added from the main thread only."""

    def __init__(self, nodes: int, *, cpus: int = 1, gpus: int = 0, dashboard_port: int | None = None) -> None:
        self.cpus, self.gpus = cpus, gpus
        board = {"include_dashboard": dashboard_port is not None, "dashboard_port": dashboard_port}
        own = {"node_ip_address": HEAD_IP, "dashboard_agent_listen_port": None}  # any port, as other nodes have
        self.ray = Cluster(initialize_head=True, head_node_args={**NODE, **board, **own, **resources(0, 0)})
        self.num_nodes, self.num_added = nodes, 0
        self.mend()

    @property
    def address(self) -> str:
        return str(self.ray.address)

    def mend(self) -> None:
        """Add nodes in the place of lost ones."""
        for node in list(self.ray.worker_nodes):
            if not raylet(node).is_running():
                self.ray.remove_node(node, allow_graceful=False)
        while len(self.ray.worker_nodes) < self.num_nodes:
            self.grow()

    def grow(self, **offers: int) -> Any:
        """One more node, like the others but for `offers` (cpus, gpus)."""
        self.num_added += 1
        offered = resources(**{"cpus": self.cpus, "gpus": self.gpus} | offers)
        return self.ray.add_node(**NODE, **offered, node_ip_address=f"127.0.0.{2 + self.num_added % 200}")

    def ranks(self) -> list[psutil.Process]:
        """The ranks of all gangs, as processes, in the order in which they were started."""
        found = [rank for node in self.ray.worker_nodes for rank in ranks_on(node)]
        return sorted(found, key=lambda process: process.create_time())

    def nodes(self) -> list:
        """Those that offer resources, always in the same order."""
        return sorted(self.ray.worker_nodes, key=lambda node: node.node_ip_address)

    def nodes_with_ranks(self) -> list:
        return [node for node in self.nodes() if ranks_on(node)]

    def lose(self, node: Any) -> None:
        """As if a machine's power went."""
        self.ray.remove_node(node, allow_graceful=False)

    def preempt(self, node: Any, notice_s: float) -> None:
        """As a cloud takes a spot machine back: a notice first, and then it is gone."""
        self.give_notice(node, notice_s)
        time.sleep(notice_s)
        self.lose(node)

    def give_notice(self, node: Any, notice_s: float) -> None:
        accepted, why = GcsClient(address=self.address).drain_node(
            node.node_id,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "a rehearsed preemption",
            int((time.time() + notice_s) * 1000),
        )
        if not accepted:
            raise RuntimeError(why)

    def imbalance(self) -> dict[str, tuple[Any, Any]]:
        """Resources that are not free though no run is on: name -> (available, in all). Needs a connected driver."""

        def held() -> dict[str, tuple[Any, Any]]:
            free, there = ray.available_resources(), ray.cluster_resources()
            names = [name for name in there if name in ("CPU", "GPU")]
            return {name: (free.get(name, 0), there[name]) for name in names if free.get(name, 0) != there[name]}

        return patiently(held)

    def leftovers(self) -> list[psutil.Process]:
        """Ranks that outlive their run: a process that is killed takes a moment to go."""
        return patiently(self.ranks)


Found = TypeVar("Found", dict, list)


def patiently(look: Callable[[], Found]) -> Found:
    """What is still found after some patience; empty as soon as nothing is."""
    patience = time.monotonic() + BALANCE_S
    while (found := look()) and time.monotonic() < patience:
        time.sleep(0.2)
    return found


def resources(cpus: int, gpus: int) -> dict[str, Any]:
    return {"num_cpus": cpus, "num_gpus": gpus}


def raylet(node: Any) -> psutil.Process:
    (started,) = node.all_processes["raylet"]
    return psutil.Process(started.process.pid)


def ranks_on(node: Any) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return [child for child in raylet(node).children() if "ray::Rank" in " ".join(child.cmdline())]
    return []


@contextlib.contextmanager
def rehearsal(nodes: int, *, cpus: int = 1, gpus: int = 0, dashboard_port: int | None = None) -> Iterator:
    """A cluster for the time of this block; other commands join it with --address and this process's environment."""
    folder = tempfile.mkdtemp(prefix="adv-", dir="/tmp")  # Ray's sockets want a short path
    settings = {
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # the ports are open to the whole network
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
    }
    try:
        with environment(**settings):
            cluster = RehearsalCluster(nodes, cpus=cpus, gpus=gpus, dashboard_port=dashboard_port)
            try:
                yield cluster
            finally:
                cluster.ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
