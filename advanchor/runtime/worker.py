"""One process's work: it holds the base, the engine and the evaluator for life and erases task after task."""

import contextlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import advanchor
from advanchor import methods, models
from advanchor.api import ErasedConcept, describe, packed
from advanchor.artifacts import pack, unpack
from advanchor.delta import Delta
from advanchor.engine import Engine, TorchEngine
from advanchor.evaluation import Evaluation, EvaluationSettings, Evaluator
from advanchor.evaluation.exam import Scorer, UnknownConceptError
from advanchor.fusion.statistics import FUSABLE, statistics
from advanchor.models.base import Base
from advanchor.plan import Task, scores_key
from advanchor.report.grids import grid, to_png
from advanchor.runtime.store import Store
from advanchor.training import Context, Report, ignore


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker process needs to know of the run; plain data, sent once."""

    store_url: str
    model: str
    trained_weights: str
    evaluate: EvaluationSettings | None
    stage: int
    precision: str
    offload: str


class Refusal(ValueError):
    """A task that can never succeed, whoever tries: its input is wrong."""


def scorer_for(base: Base) -> Scorer | None:
    """What looks at a base's pictures; None where nothing can (plan.SCORED_MODELS)."""
    if base.name != "pocket":
        return None
    from advanchor.pocket.scorer import PocketScorer

    return PocketScorer(base.device)


def device_for_worker() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


MakeEngine = Callable[[nn.Module, dict[str, nn.Parameter]], Engine]


class Worker:
    def __init__(self, settings: WorkerSettings, make_engine: MakeEngine = TorchEngine) -> None:
        self.settings = settings
        self.store = Store(settings.store_url)
        self.base = models.load(settings.model, device=device_for_worker())
        self.delta = Delta(self.base.unet, settings.trained_weights)
        self.base_tensors = {k: v.detach().cpu().clone() for k, v in self.delta.base_tensors().items()}
        self.engine = make_engine(self.base.unet, self.delta.named_parameters())
        self.evaluator = None
        scorer = scorer_for(self.base)
        if settings.evaluate and scorer:
            self.evaluator = Evaluator(self.base, scorer, settings.evaluate, self.engine.module)
        self.scores_key = scores_key(settings.model, self.base.digest, settings.evaluate)

    def erase(self, task: Task, report: Report = ignore) -> dict[str, Any]:
        """Erase, evaluate, publish (rank 0); returns the result. Raises Refusal for a task with wrong input.

        A finished task whose scores come from another evaluation is evaluated again, not trained again.
        """
        if task.base_digest != self.base.digest:
            raise Refusal(f"the base {task.base!r} changed since the batch was planned; plan it again")
        existing = self.store.result(task)
        if existing and existing["scores_key"] == self.scores_key:
            return existing
        started = time.time()
        if existing:
            result = {key: value for key, value in existing.items() if key != "files"}
            files = {
                f"{stem}.safetensors": self.store.read_file(task, stem)
                for stem in ("delta", "anchor", "statistics")
                if stem in existing["files"]
            }
            self.engine.load(self.delta.checked(unpack(files["delta.safetensors"], task.folder)[0]))
        else:
            result, files = self.train(task, report)
            result["seconds"] = {"erasing": round(time.time() - started, 2)}
        report("evaluation", 0, 1, 0.0)
        started = time.time()
        evaluation = self.evaluate(task)
        if evaluation:
            files |= {
                f"{name}.png": to_png(grid([("base", a), ("erased", b)]))
                for name, (a, b) in evaluation.previews.items()
            }
        result["scores"] = evaluation.scores if evaluation else None
        result["scores_key"] = self.scores_key
        result["seconds"]["evaluating"] = round(time.time() - started, 2)
        return self.store.publish(task, files, result) if self.engine.rank == 0 else result

    def train(self, task: Task, report: Report) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The result so far, and the files of the erasure."""
        try:
            context = Context(self.base, self.engine, self.delta, task.concept, task.seed, report)
        except ValueError as error:
            raise Refusal(str(error)) from error
        erasure = methods.erase(context, task.method)
        metadata = describe(self.base, task.concept, task.method, task.seed) | {"task": task.id}
        delta_file, anchor_file = packed(ErasedConcept(erasure, self.base_tensors, metadata))
        files = {"delta.safetensors": delta_file} | ({"anchor.safetensors": anchor_file} if anchor_file else {})
        if erasure.trained_weights == FUSABLE:
            files["statistics.safetensors"] = pack(statistics(erasure.delta, context.e_c.prompt_embeds), metadata)
        return {**metadata, "facts": erasure.facts, "provenance": provenance(self)}, files

    def evaluate(self, task: Task) -> Evaluation | None:
        """None where there is no scorer, or where it does not know the concept."""
        if self.evaluator is None:
            return None
        with contextlib.suppress(UnknownConceptError):
            return self.evaluator.evaluate(task.concept.name, self.delta.on)
        return None


def provenance(worker: Worker) -> dict[str, Any]:
    """What the numbers came from and may depend on: versions, device, threads, ranks."""
    import diffusers
    import transformers

    return {
        "advanchor": advanchor.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "engine": type(worker.engine).__name__,
        "stage": worker.settings.stage,
        "precision": worker.settings.precision,
        "ranks": worker.engine.world_size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if worker.base.device.type == "cuda" else platform.machine(),
        "host": platform.node(),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
