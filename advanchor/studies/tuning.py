"""How the comparison's settings were chosen, and what each part of our own method brings: read as the comparison is."""

from dataclasses import replace
from typing import Any

from advanchor.concepts import Concept
from advanchor.methods import MethodSettings, speed, uce
from advanchor.models.base import Base
from advanchor.studies import rivals
from advanchor.studies.lab import Scale, Study, Trial, concepts, crossed

PARTS: dict[str, dict[str, Any]] = {  # of our method, each taken out
    rivals.NO_SEARCH: {"anchor_steps": 0},
    "no margin": {"margin": 0.0},
    "no drift": {"drift": 0.0},
    "not beyond the anchor": {"beyond": 0.0},
    "no guard": {"retain_weight": 0.0},
    "from the concept": {"start": "own", "start_concept": None},
    "from the neutral prompt": {"start": "superclass", "start_concept": None},
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
        whole = rivals.guarded(base, concept)
        parts: dict[str, MethodSettings] = {
            part: rivals.guarded(base, concept, **changed) for part, changed in PARTS.items()
        }
        return {rivals.OURS: whole, **{part: settings for part, settings in parts.items() if settings != whole}}

    kinds = ("style",) if scale.quick else rivals.KINDS
    listed = [c for kind in kinds for c in concepts(kind, rivals.TEST_CONCEPTS[kind][: min(2, scale.per_kind)])]
    return crossed(listed, rows_for, replace(scale, seeds=1))


def tuning(base: Base, scale: Scale) -> list[Trial]:
    """On validation concepts: every trained method with every learning rate, closed forms with other settings."""

    def tried(concept: Concept) -> dict[str, MethodSettings]:
        rows = rivals.trained_rows(base, concept)
        if concept.kind == "object":
            neutral = {"start": "superclass", "start_concept": None, "anchor_steps": 5, "margin": 0.3}
            rows[f"{rivals.OURS} from the neutral prompt"] = lambda lr: rivals.guarded(base, concept, lr, **neutral)
        elif rivals.most_similar(base, concept):
            similar = rivals.from_similar(base, concept)
            rows[f"{rivals.OURS} from the similar concept"] = lambda lr: rivals.guarded(base, concept, lr, **similar)
        found = {f"{label}, lr {lr:g}": make(lr) for label, make in rows.items() for lr in rivals.LRS}
        return found | closed_forms(base, concept)

    kinds = ("style",) if scale.quick else rivals.KINDS
    listed = [c for kind in kinds for c in concepts(kind, rivals.VALIDATION[kind][: scale.per_kind])]
    return crossed(listed, tried, replace(scale, seeds=1))


TUNING = Study(
    "What each method wants", tuning, rivals.EVALUATION, rivals.rows, rivals.COLUMNS, rivals.plot, rivals.FOLDER,
    rivals.EXPLAINED,
)  # fmt: skip
ABLATION = replace(TUNING, title="What each part brings", trials=ablation)
