"""From a batch to tasks: one per concept, named by the hash of everything that decides its numbers."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from advanchor import models
from advanchor.batch.problems import problems
from advanchor.batch.spec import BatchError, BatchSpec
from advanchor.concepts import Concept
from advanchor.evaluation.scorers import is_scored
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.messages import field, reason
from advanchor.methods import METHODS, MethodSettings, for_base
from advanchor.models.folders import trained_weights
from advanchor.models.profile import profile_of
from advanchor.training.context import TrainingSettings
from advanchor.training.engine import derived_seed

ID_LENGTH = 12
NUMBERS = {"fp32": "fp32", "bf16": "bf16 from loading on"}  # what a precision means for the numbers: part of an id
SLUG_LENGTH = 40
OLD = "finish them with that version, or erase the batch anew into another folder"


class Task(BaseModel):
    """One concept to erase. Two tasks with the same id give the same delta."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(pattern=rf"^[0-9a-f]{{{ID_LENGTH}}}$")  # a part of paths: a plan may have been written by anybody
    concept: Concept
    method: MethodSettings
    base: str
    base_digest: str
    profile: str  # digest
    draws: str  # what its seed comes from: as the id, but whatever the profile
    precision: str
    batch_seed: int

    @property
    def seed(self) -> int:
        return derived_seed("task", self.batch_seed, self.draws)

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


def make_task(spec: BatchSpec, concept: Concept, base_digest: str, choices: Sequence[str] = ()) -> Task:
    """The task of one concept; prompts that it does not have are its base's, by kind.

    choices: the trained_weights that the base has. ValueError for a method that asks for others.
    """
    method, profile = spec.method_for(concept.kind), profile_of(base_digest)
    method = for_base(method, choices) if choices else method
    concept = concept.with_prompts(profile.prompts)
    draws = {
        "base": base_digest,
        "concept": concept.model_dump(mode="json", exclude={"kind"} if concept.similar else {"kind", "similar"}),
        "method": method.model_dump(mode="json", exclude=unused(method)),
        "version": METHODS[method.name].VERSION,
        "precision": NUMBERS[spec.deepspeed.precision],
        "seed": spec.seed,
    }
    return Task(
        id=content_hash(draws | {"profile": profile.digest})[:ID_LENGTH],
        draws=content_hash(draws)[:ID_LENGTH],
        concept=concept,
        method=method,
        base=spec.base,
        base_digest=base_digest,
        profile=profile.digest,
        precision=spec.deepspeed.precision,
        batch_seed=spec.seed,
    )


def again(task: Task, method: MethodSettings | None = None) -> Task:
    """The same concept once more, from other random numbers and, if they are given, by other settings."""
    method = method or task.method
    changed = {"settings": method.model_dump(mode="json", exclude=unused(method))}
    return task.model_copy(
        update={
            "id": content_hash({"again": task.id, **changed})[:ID_LENGTH],
            "draws": content_hash({"again": task.draws, **changed})[:ID_LENGTH],
            "method": method,
        }
    )


def unused(method: MethodSettings) -> set[str]:
    """Settings that decide nothing beside the others."""
    return method.unused if isinstance(method, TrainingSettings) else set()


def make_tasks(spec: BatchSpec, concepts: Sequence[Concept]) -> list[Task]:
    """A task per concept, in order, of a batch without problems."""
    place = models.place_of(spec.base)
    digest, choices = place.digest, trained_weights(place.folder)
    return [make_task(spec, concept, digest, choices) for concept in concepts]


def plan(spec: BatchSpec, concepts: Sequence[Concept]) -> list[Task]:
    """The batch's tasks, in its order. Raises BatchError with all of its problems."""
    if found := problems(spec, concepts):
        raise BatchError(found)
    return make_tasks(spec, concepts)


def scores_key(base_digest: str, evaluate: EvaluationSettings | None) -> str | None:
    """Scores with the same key are comparable; a changed evaluation never retrains. None where nothing is scored."""
    if evaluate is None or not is_scored(base_digest, evaluate):
        return None
    unasked = set() if evaluate.attacks else {"attacks", "attack_steps"}  # so that they leave all other scores as known
    if evaluate.exam == "plain":
        unasked |= {"exam"}
    decides = evaluate.model_dump(mode="json", exclude=unasked, exclude_none=True)
    return content_hash({"base": base_digest, "version": 2, **decides})[:ID_LENGTH]


def dump_plan(spec: BatchSpec, tasks: list[Task]) -> dict[str, Any]:
    """A plan as JSON, from which a run can go on without the batch file and what it refers to."""
    dumped = [task.model_dump(mode="json") for task in tasks]
    return {"spec": spec.model_dump(mode="json", by_alias=True), "tasks": dumped}


def load_plan(content: Any, where: str = "plan.json") -> tuple[BatchSpec, list[Task]]:
    """What dump_plan has written; `where` names it in errors. Raises BatchError, in one line."""
    try:
        spec, tasks = content["spec"], content["tasks"]
        if not isinstance(tasks, list) or not tasks:
            raise TypeError("there are no tasks in it")
        if any("profile" not in task for task in tasks):
            raise BatchError([f"{where} was written by version 0.1, whose runs this version cannot go on with: {OLD}"])
        return BatchSpec.model_validate(spec), [Task.model_validate(task) for task in tasks]
    except ValidationError as error:
        details = error.errors()[0]
        problem = f"{field(details['loc'])}: {reason(details, ())}"
        raise BatchError([f"{where} was written by another version of this program, or changed: {problem}"]) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BatchError([f"{where} is not a plan of this program: {error!r}"]) from error
