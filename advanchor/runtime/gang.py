"""Ranks and gangs: the only file with Ray actors.

A gang is one placement group with one rank (an actor) per bundle. It stays warm: model and engine are made once, then
it takes pack after pack of tasks. It is the unit of recovery: when one rank breaks, the whole gang goes and another
is made.
"""

import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from advanchor.batch.plan import Task
from advanchor.runtime.worker import Outcome, Worker, WorkerSettings, measured_pack_size


class TaskCancelled(Exception):
    """Raised inside an attempt's loop after the driver asked it to stop."""


@dataclass(frozen=True)
class Progress:
    phase: str = "starting"
    step: int = 0
    total: int = 0
    loss: float = 0.0


class Rank:
    """One process of a gang. `progress` and `cancel` are answered while an attempt runs."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self.rank, self.num_ranks = rank, num_ranks
        self.state = Progress()
        self.stop = threading.Event()

    def open_store(self) -> str:
        """Rank 0 makes the rendezvous: a file that only its user can reach.

        The ranks of a gang share a node. A TCPStore would listen on all of its interfaces, and obey whoever connects;
        Ray's own folder (/tmp/ray) is open to all users of the machine, who could put another file in the place.
        On Linux the file has no name of its own: however the process ends, nothing stays behind.
        """
        if sys.platform == "linux":
            return f"/proc/{os.getpid()}/fd/{os.memfd_create('advanchor-gang')}"
        return str(Path(tempfile.mkdtemp(prefix="advanchor-gang-")) / "store")

    def join(self, rendezvous: str, settings: WorkerSettings, probe: str) -> str:
        """Meet the other ranks, load the base, make the engine, leave a probe; returns the node's name."""
        from torch.distributed import FileStore

        from advanchor.runtime.deepspeed_engine import DeepSpeedEngine, join_ranks

        join_ranks(self.rank, self.num_ranks, FileStore(rendezvous, self.num_ranks), settings.device)
        self.worker = Worker(
            settings,
            lambda unet, parameters: DeepSpeedEngine(
                unet, parameters, stage=settings.stage, precision=settings.precision, offload=settings.offload
            ),
        )
        if self.rank == 0:
            self.worker.store.write_probe(probe)
        return f"{os.uname().nodename} ({ray.util.get_node_ip_address()})"

    def erase(self, pack: Sequence[Task]) -> list[Outcome]:
        self.stop.clear()
        self.state = Progress()
        return self.worker.erase(pack, self.report)

    def report(self, phase: str, step: int, total: int, loss: float) -> None:
        self.state = Progress(phase, step, total, loss)
        if self.stop.is_set():
            raise TaskCancelled

    @ray.method(concurrency_group="no_op")
    def progress(self) -> Progress:
        return self.state

    @ray.method(concurrency_group="no_op")
    def cancel(self) -> None:
        self.stop.set()


remote: Any = ray.remote  # whose annotations know no concurrency groups
RankActor = remote(max_restarts=0, max_task_retries=0, concurrency_groups={"no_op": 1})(Rank)


@dataclass(frozen=True)
class GangShape:
    """What one gang asks of the cluster: `ranks` bundles on one node."""

    ranks: int
    bundle: Mapping[str, float]  # resources of one rank, e.g. {"CPU": 4, "GPU": 1}

    def fits(self, node: Mapping[str, float]) -> int:
        """How many such gangs a node with these resources holds."""
        return min(int(node.get(name, 0) / (self.ranks * amount) + 1e-9) for name, amount in self.bundle.items())

    def __str__(self) -> str:
        return f"{self.ranks} x ({', '.join(f'{name} {amount:g}' for name, amount in self.bundle.items())})"


def measure_pack_size(shape: GangShape, settings: WorkerSettings, group: Sequence[Task], sharers: int) -> Any:
    """A reference to the answer of worker.measured_pack_size, from a machine that could hold a gang."""
    measured = remote(num_cpus=shape.bundle["CPU"], num_gpus=shape.bundle.get("GPU", 0))(measured_pack_size)
    return measured.remote(settings, group[0].method, len(group), sharers)


class Gang:
    """A placement group and its ranks, seen from the driver. Nothing here blocks."""

    def __init__(self, number: int, shape: GangShape, settings: WorkerSettings) -> None:
        self.number = number
        self.group = placement_group([dict(shape.bundle)] * shape.ranks, strategy="STRICT_PACK")
        self.ranks = [
            RankActor.options(
                num_cpus=shape.bundle["CPU"],
                num_gpus=shape.bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=i),
            ).remote(i, shape.ranks)
            for i in range(shape.ranks)
        ]
        self.probe = secrets.token_hex(8)
        rendezvous = self.ranks[0].open_store.remote()
        self.expect([rank.join.remote(rendezvous, settings, self.probe) for rank in self.ranks])
        self.started_at = time.time()
        self.node = ""
        self.pack: Sequence[Task] = ()
        self.is_ready = self.is_placed = False
        self.progress: Progress = Progress()
        self.progress_ref: Any = None
        self.answer: Any = None  # rank 0's: its node, later the outcomes of a pack

    @property
    def is_idle(self) -> bool:
        return self.is_ready and not self.pack

    def has_place(self) -> bool:
        """Whether the cluster has given the gang its resources; its time runs from then on."""
        if not self.is_placed:
            self.is_placed = self.is_ready or self.group.wait(timeout_seconds=0)
            self.started_at = time.time()
        return self.is_placed

    def start(self, pack: Sequence[Task]) -> None:
        self.pack, self.started_at, self.progress = pack, time.time(), Progress()
        self.expect([rank.erase.remote(pack) for rank in self.ranks])

    def expect(self, answers: Sequence[Any]) -> None:
        """One of every rank; rank 0 speaks for the gang."""
        self.pending: dict[Any, Any] = dict(zip(answers, self.ranks, strict=True))
        self.result_ref = answers[0]
        self.cut_off: Any = None  # in the place of an answer that never came

    def ask_again(self, ref: Any) -> None:
        """A rank cannot be reached. What becomes of another question to it tells how it died, or that it lives."""
        rank = self.pending.pop(ref)
        self.cut_off = rank.progress.remote()
        self.pending[self.cut_off] = rank

    def poll_progress(self) -> None:
        """Ask rank 0 where it is, unless a question is still open; take the answer to the last one."""
        if self.progress_ref is not None:
            done, _ = ray.wait([self.progress_ref], timeout=0)
            if not done:
                return
            try:
                self.progress = cast(Progress, ray.get(self.progress_ref))
            except RayError:
                return  # the rank died; its attempt's own ref will tell
        self.progress_ref = self.ranks[0].progress.remote()

    def cancel(self) -> None:
        for rank in self.ranks:
            rank.cancel.remote()

    def close(self) -> None:
        for rank in self.ranks:
            ray.kill(rank)
        remove_placement_group(self.group)
