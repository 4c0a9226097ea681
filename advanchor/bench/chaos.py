"""A batch whose ranks, nodes and drivers are killed at random, beside the same batch undisturbed.

Every task must be done exactly once, every file must be what its result says, every delta must have the bytes of the
undisturbed run, and every resource of the cluster must be free again. Files of the run directory may be damaged at
random as well; a run with `--verify` then mends what it finds, and the same must hold of the result.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from advanchor.batch.plan import Task, load_plan
from advanchor.rundir.store import Store, StoreError
from advanchor.runtime.ray_cluster import connected
from advanchor.runtime.rehearsal import RehearsalCluster, rehearsal

Sort = Literal["rank", "node", "driver", "file"]
WEIGHTS = {"rank": 8, "node": 1, "driver": 1}
PATIENCE_S = 600.0  # for a run in which nothing happens any more
LOOK_S = 0.05
METHOD = {
    "steps": 6, "anchor_steps": 2, "num_latents": 4, "latent_steps": 4, "batch_size": 2, "lr": 1e-3, "anchor_lr": 1e-2,
}  # fmt: skip
PROMPTS = {"kind": "object", "templates": ["a {}", "a red {}"], "neutral": ["a shape", "a red shape"]}


@dataclass(frozen=True)
class Kill:
    sort: Sort
    after: int  # so many results are there, ...
    delay_s: float  # ... and then so much later
    choice: float  # which one, as a share of those that there are


@dataclass
class Figures:
    concepts: int
    nodes: int
    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)  # by what became of them
    lost_s: float = 0.0  # in attempts that broke or were interrupted, as far as a driver lived to record them
    calm_s: float = 0.0
    rough_s: float = 0.0
    mending_s: float = 0.0  # of the run with --verify, ...
    mended: int = 0  # ... and how many attempts it made
    problems: list[str] = field(default_factory=list)
    memory_mb: dict[str, int] = field(default_factory=dict)  # of a rank in the undisturbed run: first and last task

    def lines(self) -> list[str]:
        figures = {
            "concepts": f"{self.concepts} on {self.nodes} nodes, seed {self.seed}",
            "kills": counted(self.kills),
            "attempts": counted(self.attempts),
            "lost": f"{self.lost_s:.0f} s in attempts that did not end well",
            "undisturbed": f"{self.calm_s:.0f} s",
            "disturbed": f"{self.rough_s:.0f} s, {self.rough_s / self.calm_s:.2f} times as long",
            "memory": "{first} MB after a rank's first task, {last} MB after its last of {tasks}".format(
                **self.memory_mb
            ),
        }
        if self.kills.get("file"):
            figures["mending"] = f"{self.mended} attempts in {self.mending_s:.0f} s, by erase --verify"
        right = "every task done once, every checksum right, every delta bit-identical, every resource free"
        found = [f"problem: {problem}" for problem in self.problems] or [right]
        return [f"{name:12} {value}" for name, value in figures.items()] + found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def counted(counts: dict[str, int]) -> str:
    return f"{sum(counts.values())}: {', '.join(f'{number} {name}' for name, number in sorted(counts.items()))}"


def drawn(kills: int, concepts: int, seed: int) -> list[Kill]:
    """Kills spread over the run, in order."""
    draw = random.Random(seed)
    sorts: Sequence[Sort] = [sort for sort in get_args(Sort) if sort in WEIGHTS]
    return [
        Kill(
            sort=draw.choices(sorts, [WEIGHTS[sort] for sort in sorts])[0],
            after=int((number + draw.random()) / kills * (concepts - 1)),
            delay_s=draw.random(),
            choice=draw.random(),
        )
        for number in range(kills)
    ]


def drawn_damage(files: int, concepts: int, seed: int) -> list[Kill]:
    """Damage to files, spread over the run in the same way."""
    draw = random.Random(f"{seed} files")
    places = sorted(draw.random() for _ in range(files))
    return [Kill("file", int(place * (concepts - 1)), draw.random(), draw.random()) for place in places]


def write_batch(folder: Path, output: Path, concepts: int) -> Path:
    content = {
        "model": "pocket",
        "output": str(output),
        "method": METHOD,
        "concepts": [{"name": f"concept {number}", **PROMPTS} for number in range(1, concepts + 1)],
        "evaluate": None,
        "resources": {"device": "cpu", "max_attempts": 20},
    }
    path = folder / f"{output.name}.yaml"
    path.write_text(json.dumps(content))
    return path


class Driver:
    """`advanchor erase` in a process of its own, which may be killed and started again."""

    def __init__(self, batch: Path, cluster: RehearsalCluster, options: Sequence[str] = ()) -> None:
        self.options = options
        self.batch, self.environment = batch, os.environ | {"RAY_ADDRESS": cluster.address}
        self.log = batch.with_suffix(".log")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "advanchor.cli", "erase", str(self.batch), *self.options]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None


def run(
    batch: Path, cluster: RehearsalCluster, kills: Sequence[Kill] = (), options: Sequence[str] = ()
) -> tuple[float, Counter[str]]:
    """Seconds until the run has ended, and what was killed. RuntimeError if it stands still or gives up."""
    store, started, done = Store(json.loads(batch.read_text())["output"]), time.monotonic(), Counter[str]()
    folder, waiting = Path(store.root), list(kills)
    driver, results, changed = Driver(batch, cluster, options), 0, time.monotonic()
    try:
        while driver.is_alive:
            now = len(list(folder.glob("tasks/*/result.json")))
            if now != results:
                results, changed = now, time.monotonic()
            if time.monotonic() - changed > PATIENCE_S:
                raise RuntimeError(f"no further result for {PATIENCE_S:g} s; see {driver.log}")
            if waiting and results >= waiting[0].after and cluster.ranks():
                kill = waiting.pop(0)
                time.sleep(kill.delay_s)
                done[kill.sort] += strike(kill, cluster, driver, folder)
                changed = time.monotonic()
            time.sleep(LOOK_S)
    finally:
        driver.kill()
    if driver.process.returncode != 0:
        raise RuntimeError(f"the run ended with exit code {driver.process.returncode}; see {driver.log}")
    return time.monotonic() - started, done


def strike(kill: Kill, cluster: RehearsalCluster, driver: Driver, folder: Path) -> int:
    """Kill one of what there is; how many that were."""
    if not driver.is_alive:
        return 0
    match kill.sort:
        case "driver":
            driver.kill()
            driver.start()
        case "node":
            nodes = cluster.nodes()
            cluster.lose(nodes[int(kill.choice * len(nodes))])
            cluster.mend()
        case "file":
            return spoil(folder, kill.choice)
        case "rank":
            ranks = cluster.ranks()
            if not ranks:
                return 0
            ranks[int(kill.choice * len(ranks))].kill()
    return 1


def spoil(folder: Path, choice: float) -> int:
    """Cut off, empty or flip one file of a run directory, which anybody may be reading; how many that were."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    draw = random.Random(choice)
    if not files:
        return 0
    path = draw.choice(files)
    try:
        data = path.read_bytes()
        at = draw.randrange(max(len(data), 1))
        flipped = data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 1]) + data[at + 1 :]
        path.write_bytes(draw.choice((data[:at], b"", flipped)))
    except FileNotFoundError:  # it has been replaced meanwhile
        return 0
    return 1


def tasks_of(store: Store) -> list[Task]:
    return load_plan(store.read_json("plan.json"))[1]


def problems(rough: Store, calm: Store, *, damaged: bool = False) -> list[str]:
    """What is not as it must be after the disturbed run; where files were `damaged`, tasks may be done again."""
    found, results, attempts = [], {result["task"]: result for result in rough.results()}, rough.attempts()
    undisturbed = {result["task"]: result["files"]["delta"]["sha256"] for result in calm.results()}
    for task in tasks_of(calm):
        name = task.concept.name
        if task.id not in results:
            found.append(f"{name} has no result")
            continue
        try:
            for stem in results[task.id]["files"]:
                rough.read_file(task, stem)
        except StoreError as error:
            found.append(str(error))
        if results[task.id]["files"]["delta"]["sha256"] != undisturbed[task.id]:
            found.append(f"{name} has another delta than in the undisturbed run")
        if len(rough.find("tasks", task.folder, "delta-*")) != 1:
            found.append(f"{name} has more than one delta")
        times = sum(record["event"] == "Succeeded" for record in attempts.get(task.folder, ()))
        if times > 1 and not damaged:
            found.append(f"{name} was done more than once")
    if len(results) != len(undisturbed):
        found.append(f"{len(results)} results of {len(undisturbed)} tasks")
    return found


def attempts_of(store: Store) -> list[dict[str, Any]]:
    records = [record for found in store.attempts().values() for record in found]
    return sorted(records, key=lambda record: record["ended_at"])


def memory(store: Store) -> dict[str, int]:
    """Of the first gang's only rank, over all its tasks."""
    by_task = {result["task"]: result["provenance"]["memory_mb"] for result in store.results()}
    attempts, gang = store.attempts(), 1
    mine = [
        (record["ended_at"], by_task[task.id])
        for task in tasks_of(store)
        for record in attempts[task.folder]
        if record["gang"] == gang
    ]
    found = [used for _, used in sorted(mine)]
    return {"first": found[0], "last": found[-1], "tasks": len(found)}


def measure(folder: Path, concepts: int, kills: int, seed: int, nodes: int, damage: int = 0) -> Figures:
    """Both runs, in new folders `calm` and `rough`; where files are damaged, a third one mends."""
    figures = Figures(concepts, nodes, seed)
    calm, rough = Store(str(folder / "calm")), Store(str(folder / "rough"))
    with rehearsal(nodes) as cluster, connected(cluster.address):
        figures.calm_s, _ = run(write_batch(folder, Path(calm.root), concepts), cluster)
        batch = write_batch(folder, Path(rough.root), concepts)
        blows = sorted(drawn(kills, concepts, seed) + drawn_damage(damage, concepts, seed), key=lambda blow: blow.after)
        figures.rough_s, killed = run(batch, cluster, blows)
        if damage:
            before = len(attempts_of(rough))
            figures.mending_s, _ = run(batch, cluster, options=["--verify"])
            figures.mended = len(attempts_of(rough)) - before
        held = cluster.imbalance()
    records = attempts_of(rough)
    figures.kills, figures.attempts = dict(killed), dict(Counter(record["event"].lower() for record in records))
    figures.lost_s = sum(r["ended_at"] - r["started_at"] for r in records if r["event"] != "Succeeded")
    figures.memory_mb = memory(calm)
    figures.problems = problems(rough, calm, damaged=damage > 0) + [
        f"{name}: {a} of {b} free" for name, (a, b) in held.items()
    ]
    return figures
