"""What a worker would write of a task that is done."""

from typing import Any

from advanchor.batch.plan import Task


def result_of(task: Task, **changes: Any) -> dict[str, Any]:
    """result.json but for its files."""
    told = {
        "task": task.id,
        "base": task.base,
        "base_digest": task.base_digest,
        "concept": task.concept.model_dump(mode="json"),
        "method": task.method.model_dump(mode="json"),
        "seed": task.seed,
        "scores": None,
        "scores_key": None,
        "seconds": {"erasing": 1.5, "evaluating": 0.5},
    }
    return told | changes
