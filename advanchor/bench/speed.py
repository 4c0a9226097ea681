"""`advanchor bench speed`: the authors' schedule and ours side by side, on one machine, in one run.

Every measurement is a process of its own, so that peak memory is its own and nothing is warm that is cold for others;
the variants take turns, and every round has another concept and other seeds. Ratios count anchor search and fine-tuning
only.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, median, stdev
from typing import Any

from advanchor.bench.trial import LEVERS, Measured, Trial
from advanchor.bench.work import Work, count


@dataclass(frozen=True)
class Variant:
    """One row of the table: processes side by side, each with its own trial."""

    name: str
    trials: tuple[Trial, ...]

    @property
    def concepts(self) -> int:
        return sum(trial.concepts for trial in self.trials)


@dataclass(frozen=True)
class Row:
    """Medians over the rounds. Seconds, rows and memory are of one concept where it says so."""

    variant: str
    concepts: int  # at once
    processes: int
    threads: int  # of each process
    start_s: float
    load_s: float
    latents_s: float  # per concept
    train_s: float  # per concept
    cpu_s: float  # per concept, of all threads
    concepts_per_hour: float
    ratio: float  # of concepts per hour, to the first row
    forwards: float  # rows through a UNet, per concept
    equivalents: float  # the same with the backward passes, as forwards of one row
    peak_mb: float  # of all processes
    outside: float  # share of the time outside forwards and backward passes
    of_peak: float  # floating-point operations per second, as a share of those of a large product
    scores: dict[str, str]  # UA, IRA and CRA under the first seed in percent, over the rounds, if asked


def variants(trial: Trial, pack: int, processes: int) -> list[Variant]:
    """(a) the authors' schedule, (b) ours, (c) ours packed, (d) packed in several processes that share the cores.

    (a) also without checkpoints and, where it is scored, with its gradients zeroed. No (d) with fewer than two
    processes.
    """
    ours, shared = replace(trial, variant="ours"), max(1, trial.threads // max(1, processes))
    packed = replace(ours, concepts=pack)
    side_by_side = tuple(replace(packed, threads=shared, first=pack * i) for i in range(processes))
    chosen = [
        Variant("(a) authors' schedule", (replace(trial, variant="authors"),)),
        Variant("(a) all activations kept", (replace(trial, variant="authors, all activations kept"),)),
        *([Variant("(a) gradients zeroed", (replace(trial, variant="authors, gradients zeroed"),))] * trial.evaluate),
        Variant("(b) ours, one concept", (ours,)),
        Variant(f"(c) ours, packs of {pack}", (packed,)),
    ]
    return chosen + ([Variant(f"(d) {processes} x packs of {pack}", side_by_side)] if processes > 1 else [])


def lever_variants(trial: Trial, pack: int) -> list[Variant]:
    """Packs as they are, and with one lever each."""
    packed = replace(trial, variant="ours", concepts=pack)
    pulled = {lever: replace(packed, lever=lever) for lever in LEVERS} | {"bf16": replace(packed, precision="bf16")}
    return [Variant(f"packs of {pack}", (packed,)), *(Variant(name, (own,)) for name, own in pulled.items())]


def run_processes(trials: Sequence[Trial]) -> list[Measured]:
    """All at the same time. RuntimeError with its output if one of them fails."""
    started = []
    for trial in trials:
        environment = os.environ | {"OMP_NUM_THREADS": str(trial.threads)}
        command = [sys.executable, "-m", "advanchor.bench.trial", json.dumps(asdict(trial))]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe))
    ended = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, ended, strict=True):
        if process.returncode:
            raise RuntimeError(f"a measurement failed:\n{errors}")
    return [Measured(**json.loads(output.splitlines()[-1])) for output, _ in ended]


def summary(variant: Variant, rounds: Sequence[Sequence[Measured]], work: Work, first_rate: float | None) -> Row:
    """Medians over the rounds of a variant; within a round the slowest process counts."""

    def middle(value: Callable[[Measured], float], over: Callable[[list[float]], float] = max) -> float:
        return median(over([value(measured) for measured in one_round]) for one_round in rounds)

    kinds = rounds[0][0].rows
    rows = {kind: middle(lambda m, kind=kind: m.rows.get(kind, 0) / m.concepts) for kind in kinds}
    equivalents, train_s = work.equivalents(rows), middle(lambda m: m.train_s) / variant.concepts
    rate = 3600 / train_s
    firsts = [one_round[0].scores for one_round in rounds]
    return Row(
        variant=variant.name,
        concepts=variant.concepts,
        processes=len(variant.trials),
        threads=variant.trials[0].threads,
        start_s=middle(lambda m: m.start_s),
        load_s=middle(lambda m: m.load_s),
        latents_s=middle(lambda m: m.latents_s / m.concepts),
        train_s=train_s,
        cpu_s=middle(lambda m: m.cpu_s, sum) / variant.concepts,
        concepts_per_hour=rate,
        ratio=rate / (first_rate or rate),
        forwards=rows["forward"],
        equivalents=equivalents,
        peak_mb=middle(lambda m: m.peak_mb, sum),
        outside=middle(lambda m: 1 - m.models_s / m.train_s),
        scores={name: spread([100 * scores[name] for scores in firsts]) for name in firsts[0]},
        of_peak=equivalents * work.forward / train_s / middle(lambda m: m.matmul_flops),
    )


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def run(
    trial: Trial, chosen: Sequence[Variant], rounds: int, said: Callable[[str], None] = lambda _: None
) -> tuple[list[Row], list[dict[str, Any]]]:
    """The table, and every measurement behind it."""
    work = count(trial.model, None if trial.model == "pocket" else trial.side)
    found: dict[str, list[list[Measured]]] = {variant.name: [] for variant in chosen}
    for number in range(rounds):
        seeded = [replace(v, trials=tuple(replace(t, seed=number, concept=number) for t in v.trials)) for v in chosen]
        for variant in seeded if number % 2 == 0 else reversed(seeded):
            measured = run_processes(variant.trials)
            found[variant.name].append(measured)
            said(f"round {number + 1} of {rounds}: {variant.name}: {max(m.train_s for m in measured):.1f} s")
    table: list[Row] = []
    for variant in chosen:
        table.append(summary(variant, found[variant.name], work, table[0].concepts_per_hour if table else None))
    raw = [
        {"variant": name, "round": number, **asdict(measured)}
        for name, rounds_of in found.items()
        for number, one_round in enumerate(rounds_of)
        for measured in one_round
    ]
    return table, raw


def markdown(table: Sequence[Row]) -> str:
    """The table as it stands in docs/speed.md."""
    lines: list[str] = []
    for row in table:
        cells = {
            "variant": row.variant,
            "threads": f"{row.processes} x {row.threads}",
            "start s": f"{row.start_s:.1f}",
            "load s": f"{row.load_s:.1f}",
            "latents s": f"{row.latents_s:.2f}",
            "train s": f"{row.train_s:.2f}",
            "CPU s": f"{row.cpu_s:.2f}",
            "concepts/h": f"{row.concepts_per_hour:.0f}",
            "ratio": f"{row.ratio:.2f}",
            "forwards": f"{row.forwards:.0f}",
            "equivalents": f"{row.equivalents:.0f}",
            "peak MB": f"{row.peak_mb:.0f}",
            "outside": f"{row.outside:.1%}",
            "of peak": f"{row.of_peak:.1%}",
        }
        cells |= {f"{name.upper()} %": value for name, value in row.scores.items()}
        if not lines:
            lines += [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]
        lines.append(f"| {' | '.join(cells.values())} |")
    return "\n".join(lines)
