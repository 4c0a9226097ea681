"""From a batch to tasks: one per concept, named by the hash of everything that decides its numbers."""

import hashlib
import json
import re
import unicodedata
from typing import Any

from pydantic import BaseModel, ConfigDict

from advanchor import models
from advanchor.concepts import Concept
from advanchor.engine import derived_seed
from advanchor.evaluation import EvaluationSettings
from advanchor.evaluation.scorers import missing
from advanchor.methods import METHODS, MethodSettings, missing_similar
from advanchor.spec import BatchError, BatchSpec
from advanchor.training import TrainingSettings

ID_LENGTH = 12
SCORED_MODELS = ("pocket",)  # those that have a scorer of their own
SLUG_LENGTH = 40


class Task(BaseModel):
    """One concept to erase. Two tasks with the same id give the same delta."""

    model_config = ConfigDict(frozen=True)

    id: str
    concept: Concept
    method: MethodSettings
    base: str
    base_digest: str
    precision: str
    batch_seed: int

    @property
    def seed(self) -> int:
        return derived_seed("task", self.batch_seed, self.id)

    @property
    def folder(self) -> str:
        """The task's folder in the run directory; safe whatever the concept is called."""
        return f"{slug(self.concept.name)}-{self.id}"


def slug(name: str) -> str:
    """Lowercase ASCII letters, digits and dashes, never empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_LENGTH].strip("-") or "concept"


def content_hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_task(spec: BatchSpec, concept: Concept, base_digest: str) -> Task:
    method = spec.method_for(concept.kind)
    decides = {
        "base": base_digest,
        "concept": concept.model_dump(mode="json", exclude={"kind"} if concept.similar else {"kind", "similar"}),
        "method": method.model_dump(mode="json"),
        "version": METHODS[method.name].VERSION,
        "precision": spec.deepspeed.precision,
        "seed": spec.seed,
    }
    return Task(
        id=content_hash(decides)[:ID_LENGTH],
        concept=concept,
        method=method,
        base=spec.model,
        base_digest=base_digest,
        precision=spec.deepspeed.precision,
        batch_seed=spec.seed,
    )


def plan(spec: BatchSpec, concepts: list[Concept]) -> list[Task]:
    """The batch's tasks, in its order.

    Raises BatchError if the model or what its scorer needs is not there, or if it has other weights to train.
    """
    base_digest, problems = "", []
    try:
        folder = models.resolve(spec.model)
        models.adapter(folder)
        base_digest = models.digest(folder)
    except models.ModelError as error:
        problems.append(f"model: {error}")
    if spec.evaluate and spec.evaluate.scorer:
        problems += [f"evaluate.scorer.{problem}" for problem in missing(spec.evaluate.scorer, concepts)]
    if problems:
        raise BatchError(problems)
    lacking = [missing_similar(spec.method_for(concept.kind), concept) for concept in concepts]
    if any(lacking):
        raise BatchError([f"method.{problem}" for problem in lacking if problem])
    tasks = [make_task(spec, concept, base_digest) for concept in concepts]
    trained = {task.method.trained_weights for task in tasks}
    if len(trained) > 1:
        raise BatchError([f"method_by_kind: one run trains one set of weights, not {' and '.join(sorted(trained))}"])
    if problem := attack_problem(spec):
        raise BatchError([f"evaluate.attacks: {problem}"])
    ranks = spec.resources.ranks
    sizes = {task.method.batch_size for task in tasks if isinstance(task.method, TrainingSettings)}
    if uneven := sorted(size for size in sizes if size % ranks):
        raise BatchError([f"method.batch_size: {uneven[0]} does not divide by the {ranks} ranks of gpus_per_task"])
    return tasks


def attack_problem(spec: BatchSpec) -> str:
    """Why this batch's erasures cannot be attacked, naming the setting; empty if they can, or need not."""
    if not (spec.evaluate and spec.evaluate.attacks):
        return ""
    if spec.model not in SCORED_MODELS or spec.evaluate.scorer:
        return f"only the scorers of {', '.join(SCORED_MODELS)} know how to ask; not {spec.model!r} or evaluate.scorer"
    if spec.resources.ranks > 1:
        return f"attacks need whole weights in one process, not resources.gpus_per_task: {spec.resources.ranks}"
    if spec.deepspeed.stage == 3:
        return "attacks need whole weights in one process, not deepspeed.stage: 3"
    return ""


def scores_key(model: str, base_digest: str, evaluate: EvaluationSettings | None) -> str | None:
    """Scores with the same key are comparable; a changed evaluation never retrains. None where nothing is scored."""
    if evaluate is None or not is_scored(model, evaluate):
        return None
    unasked = set() if evaluate.attacks else {"attacks", "attack_steps"}  # so that they leave all other scores as known
    decides = evaluate.model_dump(mode="json", exclude=unasked, exclude_none=True)
    return content_hash({"base": base_digest, "version": 2, **decides})[:ID_LENGTH]


def is_scored(model: str, evaluate: EvaluationSettings) -> bool:
    """Whether anything can look at a model's pictures."""
    return model in SCORED_MODELS or evaluate.scorer is not None


def dump_plan(spec: BatchSpec, tasks: list[Task]) -> dict[str, Any]:
    """A plan as JSON, from which a run can go on without the batch file and what it refers to."""
    dumped = [task.model_dump(mode="json") for task in tasks]
    return {"spec": spec.model_dump(mode="json", by_alias=True), "tasks": dumped}


def load_plan(content: dict[str, Any]) -> tuple[BatchSpec, list[Task]]:
    return BatchSpec.model_validate(content["spec"]), [Task.model_validate(task) for task in content["tasks"]]
