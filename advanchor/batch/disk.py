"""What a run directory will hold, counted from the shapes of what is trained: nothing is loaded."""

from collections.abc import Sequence

from advanchor import models
from advanchor.batch.memory import GB, delta_weights, hollow_base
from advanchor.batch.spec import BatchSpec
from advanchor.concepts import Concept
from advanchor.methods import for_base
from advanchor.models.base import Base
from advanchor.models.readers import linear_names

FLOAT32 = 4  # bytes


def stored(spec: BatchSpec, concepts: Sequence[Concept]) -> int:
    """Bytes of the deltas of all concepts and of what fusing reads; pictures are not counted. Raises ModelError."""
    base = hollow_base(models.place_of(spec.base).folder, spec.deepspeed.precision)
    kinds = {concept.kind for concept in concepts}
    weights = {kind: for_base(spec.method_for(kind), base.trained_weights).trained_weights for kind in kinds}
    return sum(FLOAT32 * numbers(base, weights[concept.kind]) for concept in concepts)


def numbers(base: Base, trained: str) -> int:
    """Of one erasure: its delta, and, if that is about readers alone, statistics of the same size with their grams."""
    delta = delta_weights(base, trained)
    try:
        groups = base.groups(f"{name}.weight" for name in linear_names(base.backbone, trained))
    except ValueError:
        return delta
    widths = {group: base.backbone.get_parameter(name).shape[1] for name, group in groups.items()}
    return 2 * delta + sum(width**2 for width in widths.values())


def sentence(total: int, concepts: int) -> str:
    return f"the run directory will hold {total / GB:.2f} GB, {total / concepts / 1e6:.1f} MB a concept, and pictures"
