"""How the comparison's settings were chosen, and what each part of our own method brings: read as the comparison is."""

from dataclasses import replace
from typing import Any

from advanchor.concepts import Concept
from advanchor.methods import MethodSettings, speed, uce
from advanchor.models.base import Base
from advanchor.studies import rivals
from advanchor.studies.lab import Scale, Study, Trial, concepts, crossed

FROM_NEUTRAL, FROM_SIMILAR = f"{rivals.OURS} from the neutral prompt", f"{rivals.OURS} from the similar concept"
PARTS: dict[str, dict[str, Any]] = {  # of our method, each taken out
    rivals.NO_SEARCH: {"anchor_steps": 0},
    "no margin": {"margin": 0.0},
    "no drift": {"drift": 0.0},
    "not beyond the anchor": {"beyond": 0.0},
    "no guard": {"retain_weight": 0.0},
    "from the concept": {"start": "own"},
    "from the neutral prompt": {"start": "superclass"},
}


def closed_forms(base: Base, concept: Concept) -> dict[str, MethodSettings]:
    """What uce and speed are tried with."""
    kept = rivals.preserved_prompts(base, concept)
    found: dict[str, MethodSettings] = {}
    for tokens in ("last", "last_and_later"):
        found[f"uce, {tokens}"] = uce.Settings(tokens=tokens)
        found[f"uce, {tokens}, {rivals.UCE_PRESERVED} prompts preserved"] = uce.Settings(tokens=tokens, preserve=kept)
    tried = {
        "speed, as published but stronger": rivals.AUTHORS,
        "speed, wide": rivals.WIDE | {"strength": 4.0},
        "speed, wide, weaker": rivals.WIDE | {"strength": 3.3},
        "speed, wide, ridge 0.01": rivals.WIDE | {"ridge": 0.01},
    }
    return found | {label: speed.Settings(**settings) for label, settings in tried.items()}


def ablation(base: Base, scale: Scale) -> list[Trial]:
    """Our method, and without each of its parts."""

    def rows_for(concept: Concept) -> dict[str, MethodSettings]:
        whole = rivals.guarded(concept)
        parts: dict[str, MethodSettings] = {part: rivals.guarded(concept, **changed) for part, changed in PARTS.items()}
        return {rivals.OURS: whole, **{part: settings for part, settings in parts.items() if settings != whole}}

    kinds = ("style",) if scale.quick else rivals.KINDS
    listed = [c for kind in kinds for c in concepts(base, kind, rivals.TEST_CONCEPTS[kind][: min(2, scale.per_kind)])]
    return crossed(listed, rows_for, replace(scale, seeds=1))


def tuning(base: Base, scale: Scale) -> list[Trial]:
    """Every trained method with every learning rate, closed forms with other settings, on validation concepts.

    Of a kind that has only one of these, it is erased as often as others have concepts.
    """

    def tried(concept: Concept) -> dict[str, MethodSettings]:
        rows = rivals.trained_rows(concept)
        if concept.kind in rivals.STARTED_SIMILAR:
            rows[FROM_NEUTRAL] = lambda lr: rivals.guarded(concept, lr, **rivals.FROM_NEUTRAL)
        elif concept.similar:
            rows[FROM_SIMILAR] = lambda lr: rivals.guarded(concept, lr, **rivals.FROM_SIMILAR)
        found = {f"{label}, lr {lr:g}": make(lr) for label, make in rows.items() for lr in rivals.LRS}
        return found | closed_forms(base, concept)

    found: list[Trial] = []
    for kind in ("style",) if scale.quick else rivals.KINDS:
        listed = concepts(base, kind, rivals.VALIDATION[kind][: scale.per_kind])
        found += crossed(listed, tried, replace(scale, seeds=max(scale.seeds // len(listed), 1)))
    return found


TUNING = Study(
    "What each method wants", tuning, rivals.EVALUATION, rivals.rows, rivals.COLUMNS, rivals.plot, rivals.FOLDER,
    rivals.EXPLAINED,
)  # fmt: skip
ABLATION = replace(TUNING, title="What each part brings", trials=ablation)
