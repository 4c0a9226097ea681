"""One process's work: it holds the base, the engine and the evaluator for life and erases task after task."""

import contextlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from advanchor import methods, models
from advanchor._version import __version__
from advanchor.artifacts import describe, erasure_files, from_bytes, to_bytes
from advanchor.batch.plan import Task, scores_key
from advanchor.batch.spec import BatchSpec
from advanchor.concepts import Concept
from advanchor.evaluation.attacks import attack
from advanchor.evaluation.evaluator import Evaluation, Evaluator
from advanchor.evaluation.exam import UnknownConceptError
from advanchor.evaluation.grids import grid, to_png
from advanchor.evaluation.scorers import scorer_for
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.fusion.statistics import FUSABLE, erasure_statistics
from advanchor.methods import MethodSettings
from advanchor.models.base import Base
from advanchor.models.text import PromptError, fill
from advanchor.rundir.store import Store
from advanchor.runtime.packing import choose_pack_size
from advanchor.training.checkpointing import checkpointed
from advanchor.training.context import Context, Report, ignore
from advanchor.training.delta import Delta
from advanchor.training.engine import Engine, TorchEngine
from advanchor.training.latents import default_cache


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker process needs to know of the run; plain data, sent once."""

    store_url: str
    storage_patience_s: float
    model: str
    trained_weights: str
    evaluate: EvaluationSettings | None
    stage: int
    precision: str
    offload: str
    device: str  # "gpu" or "cpu"
    gradient_checkpointing: bool = False
    slots: int = 1  # concepts in a pack
    scored: tuple[Concept, ...] = ()  # concepts that a scorer from the settings is made for

    @classmethod
    def of(cls, spec: BatchSpec, tasks: Sequence[Task], *, on_gpu: bool) -> "WorkerSettings":
        return cls(
            store_url=Store(spec.output).url,
            storage_patience_s=spec.resources.storage_patience_s,
            model=spec.base,
            trained_weights=tasks[0].method.trained_weights,
            evaluate=spec.evaluate,
            stage=spec.deepspeed.stage,
            precision=spec.deepspeed.precision,
            offload=spec.deepspeed.offload,
            gradient_checkpointing=spec.resources.gradient_checkpointing,
            device="gpu" if on_gpu else "cpu",
            scored=tuple(task.concept for task in tasks) if spec.evaluate and spec.evaluate.scorer else (),
        )


@dataclass(frozen=True)
class Outcome:
    """What became of one task of a pack: a result, or why it can never have one."""

    task: str
    result: dict[str, Any] | None = None
    refused: str = ""


def measured_pack_size(settings: WorkerSettings, method: MethodSettings, num_tasks: int, sharers: int) -> int:
    """How many of `num_tasks` concepts to erase at once on a machine whose memory `sharers` such workers share."""
    base = load_base(settings)
    on_gpu = base.device.type == "cuda"
    free = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available / sharers
    return choose_pack_size(base, method, num_tasks, free)


def load_base(settings: WorkerSettings) -> Base:
    on_gpu = settings.device == "gpu" and torch.cuda.is_available()  # a rehearsal's GPUs are only pretended
    return models.load(settings.model, device="cuda" if on_gpu else "cpu", dtype=models.DTYPES[settings.precision])


MakeEngine = Callable[[nn.Module, dict[str, nn.Parameter]], Engine]


class Worker:
    def __init__(self, settings: WorkerSettings, make_engine: MakeEngine = TorchEngine) -> None:
        self.settings = settings
        self.store = Store(settings.store_url, settings.storage_patience_s)
        self.base = load_base(settings)
        self.delta = Delta(self.base.backbone, settings.trained_weights, settings.slots)
        if settings.gradient_checkpointing:
            checkpointed(self.base, self.delta)
        self.base_tensors = {k: v.detach().cpu().clone() for k, v in self.delta.base_tensors().items()}
        self.engine = make_engine(self.base.backbone, self.delta.named_parameters())
        self.evaluator = None
        scorer = scorer_for(self.base, settings.evaluate, settings.scored)
        if settings.evaluate and scorer:
            self.evaluator = Evaluator(self.base, scorer, settings.evaluate, self.engine)
        self.scores_key = scores_key(self.base.digest, settings.evaluate)

    def erase(self, pack: Sequence[Task], report: Report = ignore) -> list[Outcome]:
        """Erase, evaluate and publish (rank 0) the tasks of a pack, which have equal settings; one outcome each.

        What is published already is only read; where its scores come from another evaluation, it is evaluated again.
        """
        outcomes: dict[str, Outcome] = {}
        fresh: list[Task] = []
        for task in pack:
            existing = self.agreed(self.usable(task))
            if existing is None and (objection := self.objection(task)):
                outcomes[task.id] = Outcome(task.id, refused=objection)
            elif existing is None:
                fresh.append(task)
            elif existing["scores_key"] == self.scores_key:
                outcomes[task.id] = Outcome(task.id, existing)
            else:
                outcomes[task.id] = self.publish(task, 0, *self.reload(task, existing), report)
        for slot, (result, files) in enumerate(self.train(fresh, report)):
            outcomes[fresh[slot].id] = self.publish(fresh[slot], slot, result, files, report)
        return [outcomes[task.id] for task in pack]

    def objection(self, task: Task) -> str:
        """Why a task can never succeed, whoever tries; empty if it can."""
        if task.base_digest != self.base.digest:
            return f"the base {task.base!r} has changed since the batch was planned"
        try:
            self.base.concept_tokens([fill(template, task.concept.name) for template in task.concept.templates])
        except PromptError as error:
            return str(error)
        return ""

    def publish(
        self, task: Task, slot: int, result: dict[str, Any], files: dict[str, bytes], report: Report
    ) -> Outcome:
        """Evaluate what a slot of the delta holds, and let rank 0 publish it all."""
        report("evaluation", slot, max(self.settings.slots, 1), 0.0)
        started = time.time()
        evaluation = self.evaluate(task, slot)
        if evaluation:
            files |= {
                f"{name}.png": to_png(grid([("base", a), ("erased", b)]))
                for name, (a, b) in evaluation.previews.items()
            }
        result["scores"] = evaluation.scores if evaluation else None
        result["scores_key"] = self.scores_key
        result["seconds"]["evaluating"] = round(time.time() - started, 2)
        return Outcome(task.id, self.store.publish(task, files, result) if self.engine.rank == 0 else result)

    def usable(self, task: Task) -> dict[str, Any] | None:
        """The task's result, if there is one and, where it has to be evaluated again, its files are not damaged."""
        existing = self.store.result(task)
        if existing and existing["scores_key"] != self.scores_key and self.store.changed_files([existing]):
            return None
        return existing

    def agreed(self, existing: dict[str, Any] | None) -> dict[str, Any] | None:
        """What rank 0 has found, where all ranks must do the same: another driver may publish between two looks."""
        found = self.engine.gather(torch.tensor([existing is not None], device=self.base.device))
        return existing if found[0] else None

    def reload(self, task: Task, existing: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
        """A finished task's result and files, its delta on the engine."""
        files = {
            f"{stem}.safetensors": self.store.read_file(task, stem)
            for stem, entry in existing["files"].items()
            if entry["name"].endswith(".safetensors")
        }
        self.engine.load(self.delta.checked(from_bytes(files["delta.safetensors"], task.folder)[0]))
        return {key: value for key, value in existing.items() if key != "files"}, files

    def train(self, pack: Sequence[Task], report: Report) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
        """The results so far, and the files of the erasures; task k's delta is left in slot k."""
        if not pack:
            return []
        started = time.time()
        concepts, seeds = [task.concept for task in pack], [task.seed for task in pack]
        context = Context(self.base, self.engine, self.delta, concepts, seeds, report, default_cache())
        erasures = methods.erase(context, pack[0].method)
        seconds = {"erasing": round((time.time() - started) / len(pack), 2)}
        found = []
        for task, erasure, rows in zip(pack, erasures, context.spans, strict=True):
            metadata = describe(self.base, task.concept, task.method, task.seed) | {"task": task.id}
            files = erasure_files(erasure.delta, erasure.anchor, self.base_tensors, metadata)
            if erasure.trained_weights in FUSABLE:
                contribution = erasure_statistics(self.base, erasure.delta, context.e_c.rows(rows))
                files["statistics.safetensors"] = to_bytes(contribution, metadata)
            facts = {"facts": erasure.facts, "provenance": provenance(self, len(pack)), "seconds": dict(seconds)}
            found.append((metadata | facts, files))
        return found

    def evaluate(self, task: Task, slot: int) -> Evaluation | None:
        """None where there is no scorer, or where it does not know the concept."""
        if self.evaluator is None:
            return None
        with contextlib.suppress(UnknownConceptError):
            evaluation = self.evaluator.evaluate(task.concept.name, lambda scale: self.delta.on(scale, slot))
            if self.evaluator.settings.attacks:
                evaluation.scores["attacks"] = attack(self.evaluator, task.concept, self.delta, slot, evaluation.scores)
            return evaluation
        return None


def provenance(worker: Worker, packed_with: int) -> dict[str, Any]:
    """What the numbers came from and may depend on: versions, device, threads, ranks, companions."""
    import diffusers
    import transformers

    return {
        "advanchor": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "engine": type(worker.engine).__name__,
        "stage": worker.settings.stage,
        "precision": worker.settings.precision,
        "ranks": worker.engine.world_size,
        "slots": worker.settings.slots,
        "packed": packed_with,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if worker.base.device.type == "cuda" else platform.machine(),
        "host": platform.node(),
        "memory_mb": psutil.Process().memory_info().rss // 2**20,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
