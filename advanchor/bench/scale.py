"""What orchestration costs: very many tasks that erase nothing, on 1, 2, 4, ... gangs of pretended GPUs.

The driver is this process, so that its CPU time can be read while the run goes on. Tasks wait instead of computing:
their GPUs are only pretended, and a few cores can hold many gangs.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from advanchor.batch.file import read_batch
from advanchor.batch.plan import dump_plan, plan
from advanchor.bench.chaos import memory
from advanchor.rundir.status import STATUS_FILE, RunStatus
from advanchor.rundir.store import Store
from advanchor.runtime.driver import Run
from advanchor.runtime.ray_cluster import connected
from advanchor.runtime.rehearsal import RehearsalCluster, rehearsal

NODES = 2
PROMPTS = {"kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}


@dataclass(frozen=True)
class Sample:
    """The driver at one moment."""

    wall_s: float
    cpu_s: float  # of all its threads
    done: int
    gangs: int


@dataclass(frozen=True)
class Row:
    gangs: int
    tasks: int
    seconds: float  # that every task waits
    wall_s: float  # from the moment that all gangs are ready
    tasks_per_s: float
    efficiency: float  # of the gangs' time, what the tasks' waiting took; the rest is ranks' own work and idleness
    speedup: float  # in tasks per second, against the run with the fewest gangs
    driver_ms: float  # CPU time of the driver per task, ...
    driver_ms_quarters: list[float]  # ... and in each quarter of the run
    status_bytes: int  # of status.json at the end
    memory_mb: dict[str, int]  # of a rank

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


HEAD = (
    "| gangs | tasks | wall s | tasks per s | times one | efficiency | driver ms per task | its quarters | "
    "rank's memory MB |\n|---|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    quarters = " ".join(f"{ms:.1f}" for ms in row.driver_ms_quarters)
    memory = f"{row.memory_mb['first']} to {row.memory_mb['last']} over {row.memory_mb['tasks']} tasks"
    return (
        f"| {row.gangs} | {row.tasks} | {row.wall_s:.1f} | {row.tasks_per_s:.1f} | {row.speedup:.1f} | "
        f"{row.efficiency:.1%} | "
        f"{row.driver_ms:.1f} | {quarters} | {memory} |"
    )


def driver_ms(samples: Sequence[Sample]) -> float:
    """CPU time per task between the first and the last of some samples."""
    tasks = samples[-1].done - samples[0].done
    return 1000 * (samples[-1].cpu_s - samples[0].cpu_s) / max(tasks, 1)


def quarters(samples: Sequence[Sample], tasks: int) -> list[float]:
    bounds = [next(i for i, sample in enumerate(samples) if sample.done >= part * tasks // 4) for part in range(1, 5)]
    return [driver_ms(samples[start : end + 1]) for start, end in zip([0, *bounds], bounds, strict=False)]


def measure_one(folder: Path, tasks: int, gangs: int, seconds: float) -> Row:
    """One run, in the new folder `folder`; this process is connected to the cluster."""
    folder.mkdir()
    content = {
        "model": "pocket",
        "output": str(folder / "run"),
        "method": {"name": "no_op", "seconds": seconds},
        "concepts": [{"name": f"concept {number}", **PROMPTS} for number in range(1, tasks + 1)],
        "evaluate": None,
        "resources": {"gangs": gangs},
    }
    batch = folder / "batch.yaml"
    batch.write_text(json.dumps(content))
    read = read_batch(batch)
    spec = read.spec
    planned = plan(spec, read.concepts)
    store = Store(spec.output)
    store.keep_plan(read.text, (), dump_plan(spec, planned))
    samples: list[Sample] = []

    def look(status: RunStatus) -> None:
        samples.append(Sample(time.monotonic(), time.process_time(), status.count("done"), status.gangs))

    status = Run(spec, planned, store, look).run()
    if status.exit_code != 0:
        raise RuntimeError(f"{status.count('done')} of {tasks} tasks done; see {store.url}")
    last = next(i for i, sample in enumerate(samples) if sample.done == tasks)
    first = next(i for i, sample in enumerate(samples) if sample.gangs == gangs)
    steady = samples[first : last + 1]
    wall, done = steady[-1].wall_s - steady[0].wall_s, steady[-1].done - steady[0].done
    return Row(
        gangs=gangs,
        tasks=tasks,
        seconds=seconds,
        wall_s=wall,
        tasks_per_s=done / wall,
        efficiency=done * seconds / (gangs * wall),
        speedup=1.0,
        driver_ms=driver_ms(steady),
        driver_ms_quarters=quarters(steady, tasks),
        status_bytes=len(store.read(STATUS_FILE) or b""),
        memory_mb=memory(store),
    )


def measure(folder: Path, tasks: int, counts: Sequence[int], seconds: float) -> list[Row]:
    """A run for each number of gangs; every one starts gangs of its own."""
    per_node = -(-max(counts) // NODES)
    rows = []
    with rehearsal(NODES, cpus=per_node, gpus=per_node) as cluster, connected(cluster.address):
        for gangs in counts:
            rows.append(measure_one(folder / f"{gangs}-gangs", tasks, gangs, seconds))
            check_free(cluster)
    fewest = min(rows, key=lambda row: row.gangs)
    return [replace(row, speedup=row.tasks_per_s / fewest.tasks_per_s) for row in rows]


def check_free(cluster: RehearsalCluster) -> None:
    if held := cluster.imbalance():
        raise RuntimeError(f"resources that are not free after a run: {held}")
