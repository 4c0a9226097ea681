"""`advanchor bench gpu`: every base's exact shapes on one card, with random weights, within a few minutes: a page.

Each base is measured in a process of its own, so that its peak memory is its own, and one that does not fit takes no
other with it. What there is no time left for is named on the page.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from advanchor.bench import gpu_page, speed
from advanchor.bench.gpu_case import Case
from advanchor.bench.published import PUBLISHED
from advanchor.bench.speed import Variant
from advanchor.bench.trial import Trial

RESERVE_S = 60.0  # of the time, for two cards
SIDE = 64  # of Stable Diffusion 1.4's latents
BATCH = """model: pocket
method: {name: guarded_anchor}
concepts: [{name: star, kind: object}]
evaluate: null
resources: {gpus_per_task: 2}
deepspeed: {stage: 3}
"""
Say = Callable[[str], None]


@dataclass
class Found:
    """What stands on the page."""

    device: str
    torch: str
    bases: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # by the base's name: why
    schedules: list[dict[str, Any]] = field(default_factory=list)  # rows of bench speed's table
    zero_3: str = "not run: there is one card"
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Clock:
    """How much time is left."""

    def __init__(self, minutes: float) -> None:
        self.started, self.limit = time.monotonic(), 60 * minutes

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        return self.limit - self.seconds


def device_name(toy: bool) -> str:
    return "CPU, toy sizes" if toy else torch.cuda.get_device_name(0)


def ask(module: str, question: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What a process of its own prints as JSON. RuntimeError, in one line, if it fails or takes longer."""
    command = [sys.executable, "-m", module, json.dumps(question)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1.0))
    except subprocess.TimeoutExpired as error:
        raise RuntimeError("no time was left") from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300])
    return json.loads(done.stdout.splitlines()[-1])


def schedules(toy: bool) -> list[dict[str, Any]]:
    """The authors' schedule against ours at Stable Diffusion 1.4's shapes: rows of bench speed's table."""
    common: dict[str, Any] = {"steps": 1, "num_latents": 1, "latent_steps": 2}
    ours = Trial("ours", "pocket", anchor_steps=2, **common) if toy else Trial("ours", "sd14", side=SIDE, **common)
    packed = replace(ours, concepts=2 if toy else 16)
    chosen = {
        "authors' schedule": replace(ours, variant="authors"),
        f"ours, packs of {packed.concepts}": packed,
        **({} if toy else {f"ours, packs of {packed.concepts}, bf16": replace(packed, precision="bf16")}),
    }
    rows, _ = speed.run(ours, [Variant(name, (trial,)) for name, trial in chosen.items()], rounds=1)
    return [asdict(row) for row in rows]


def compare(found: Found, toy: bool) -> None:
    try:
        found.schedules = schedules(toy)
    except RuntimeError as error:
        found.failed["the two schedules"] = str(error).strip().splitlines()[-1][:300]


def two_cards(seconds: float) -> str:
    """One erasure of the pocket gallery over two ranks with ZeRO-3, as a user would start it."""
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "batch.yaml"
        batch.write_text(BATCH)
        command = [sys.executable, "-m", "advanchor.cli", "erase", str(batch), "-o", f"{folder}/run"]
        started = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            return f"not done after {seconds:.0f} s"
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1][:300]}"
    return f"a concept of the pocket gallery erased over two ranks in {time.monotonic() - started:.0f} s"


def measure(names: Sequence[str], minutes: float, say: Say, *, toy: bool = False) -> Found:
    """names: of PUBLISHED, and nothing else; all of them and the two schedules if there are none."""
    clock = Clock(minutes)
    found = Found(device_name(toy), torch.__version__)
    cards = 0 if toy else torch.cuda.device_count()
    if not names:
        compare(found, toy)
        say(f"the two schedules: {clock.seconds:.0f} s")
    for name in names or PUBLISHED:
        try:
            question = asdict(Case(name, toy))
            found.bases.append(ask("advanchor.bench.gpu_case", question, clock.left - RESERVE_S * (cards > 1)))
        except RuntimeError as error:
            found.failed[name] = str(error)
        say(f"{name}: {found.failed.get(name, 'measured')}, {clock.seconds:.0f} s")
    if cards > 1:
        found.zero_3 = two_cards(clock.left)
    found.seconds = clock.seconds
    return found


def write(found: Found, folder: Path, command: str) -> None:
    """README.md and gpu.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps({"command": command} | found.to_json(), indent=1) + os.linesep)
    (folder / "README.md").write_text(gpu_page.page(found.to_json(), command))
