"""Does a tool's own loader make of an export what the erasure is? It is asked in a process of its own.

The base with the delta in its weights predicts for the concepts' prompts, and so does what the loader made: a stock
pipeline with the LoRA on it, the merged pipeline, or the checkpoint. The error is |loaded - delta| / |delta - base|.
What stands for a whole pipeline must also decode as the base does.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from advanchor import models
from advanchor.artifacts import applied, from_bytes
from advanchor.export.lora import ExportError
from advanchor.models.base import Base
from advanchor.models.places import place_of

ROWS = 8  # prompts that are compared
PROGRAM = "from advanchor.export.verify import main; main()"
Loader = Callable[[Base, Path], Base]


class Checker:
    """A process that has made none of the exports, and loads them one after another. The first one starts it."""

    process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.process:
            self.process.communicate()

    def started(self) -> subprocess.Popen[str]:
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        command = [sys.executable, "-P", "-c", PROGRAM]
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, text=True)

    def error(self, base: str, delta: Path, exported: Path, form: str, prompts: list[str]) -> float:
        """|loaded - delta| / |delta - base| of an export. Raises ExportError if it cannot be loaded."""
        asked = {"base": base, "delta": str(delta), "exported": str(exported), "form": form, "prompts": prompts[:ROWS]}
        self.process = process = self.process or self.started()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        except (BrokenPipeError, ValueError) as error:
            raise ExportError(f"the process that was to load {exported.name} has ended") from error
        if "failed" in answer:
            raise ExportError(f"diffusers could not load {exported.name}: {answer['failed']}")
        return float(answer["error"])


@torch.no_grad()
def predicted(base: Base, prompts: list[str]) -> Tensor:
    """What the denoiser predicts for each prompt, from the same noise, half way through the schedule."""
    conditioning = base.encode(prompts)
    noise = noise_of(base, len(prompts))
    timesteps = torch.full((len(prompts),), base.schedule.num_train_timesteps // 2, device=base.device)
    return base.denoise(base.backbone, noise, timesteps, conditioning)


def noise_of(base: Base, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, *base.latent_shape, generator=generator).to(base.device)


def with_lora(base: Base, exported: Path) -> Base:
    base.pipeline.load_lora_weights(str(exported.parent), weight_name=exported.name)
    return base


def of_folder(base: Base, exported: Path) -> Base:
    return models.load(str(exported))


def of_checkpoint(base: Base, exported: Path) -> Base:
    config = str(place_of(base.name).folder)
    return models.load(json.dumps({"single_file": str(exported), "config": config}))


LOADERS: dict[str, Loader] = {
    "lora": with_lora,
    "kohya": with_lora,
    "diffusers": of_folder,
    "checkpoint": of_checkpoint,
}


def error_of(base: Base, delta: dict[str, Tensor], exported: Path, form: str, prompts: list[str]) -> float:
    was = predicted(base, prompts)
    with applied(base.backbone, delta):
        wanted = predicted(base, prompts)
    found = LOADERS[form](base, exported)
    got, whole = predicted(found, prompts), found is base or same_pictures(found, base)
    if found is base:
        base.pipeline.unload_lora_weights()
    return float((got - wanted).norm() / (wanted - was).norm().clamp_min(1e-12)) if whole else float("inf")


def same_pictures(one: Base, other: Base) -> bool:
    """Whether they decode noise to the same picture."""
    a, b = (base.decode(noise_of(base, 1)) for base in (one, other))
    return torch.allclose(a, b, atol=1e-3)


@cache
def loaded(name: str) -> Base:
    return models.load(name)


def answered(question: dict[str, Any]) -> dict[str, Any]:
    try:
        delta = from_bytes(Path(question["delta"]).read_bytes(), question["delta"])[0]
        base, exported = loaded(question["base"]), Path(question["exported"])
        return {"error": error_of(base, delta, exported, question["form"], question["prompts"])}
    except Exception as error:  # whatever a loader may raise
        line = (str(error).strip().splitlines() or [""])[0]
        return {"failed": f"{type(error).__name__}: {line}"}


def main() -> None:
    """Questions come line by line as JSON, and so do answers; what libraries print goes elsewhere."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(answered(json.loads(line))), file=answers, flush=True)
