"""Running the trials of a study through the product: one run, many settings, results in its run directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advanchor import models
from advanchor.concepts import Concept, default_prompts
from advanchor.evaluation import EvaluationSettings
from advanchor.methods import MethodSettings
from advanchor.plan import Task, dump_plan, make_task
from advanchor.runtime.drive import Place, drive
from advanchor.runtime.status import View
from advanchor.runtime.store import Store
from advanchor.spec import BatchSpec

MODEL = "pocket"


@dataclass(frozen=True)
class Trial:
    """One erasure of a study."""

    label: str  # of the row that it belongs to
    concept: Concept
    method: MethodSettings
    seed: int


@dataclass(frozen=True)
class Found:
    """A trial and what came of it."""

    trial: Trial
    result: dict[str, Any]


def concepts(kind: Any, names: Sequence[str]) -> list[Concept]:
    """Of the gallery, with the prompts of their kind."""
    prompts = default_prompts(MODEL)
    return [Concept(name=name, kind=kind).with_prompts(prompts) for name in names]


def planned(folder: Path, trials: Sequence[Trial], evaluate: EvaluationSettings) -> tuple[BatchSpec, list[Task]]:
    """A batch whose tasks have settings and seeds of their own; equal trials are one task."""
    listed = [trial.concept for trial in trials]
    common = BatchSpec(model=MODEL, output=str(folder), concepts=tuple(listed), evaluate=evaluate)
    digest = models.digest(models.resolve(MODEL))
    tasks = [
        make_task(common.model_copy(update={"method": trial.method, "seed": trial.seed}), trial.concept, digest)
        for trial in trials
    ]
    return common, tasks


def run(folder: Path, trials: Sequence[Trial], evaluate: EvaluationSettings, view: View, *, local: bool) -> list[Found]:
    """All trials; what the folder has already is not done again. RuntimeError if some could not be done."""
    spec, tasks = planned(folder, trials, evaluate)
    unique = list({task.id: task for task in tasks}.values())
    store = Store(spec.output)
    store.keep_plan("", (), dump_plan(spec, unique))
    status = drive(spec, unique, store, view, Place(local))
    if status.state == "interrupted":
        raise KeyboardInterrupt
    results = [store.result(task) for task in tasks]
    if missing := [task.concept.name for task, result in zip(tasks, results, strict=True) if result is None]:
        raise RuntimeError(f"{len(missing)} trials have no result, for example of {missing[0]!r}; see {store.url}")
    return [Found(trial, result) for trial, result in zip(trials, results, strict=True) if result]
