"""How the comparison's settings were chosen, and what each part of our own method brings: read as the comparison is."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from advanchor.concepts import Concept
from advanchor.methods import MethodSettings, esd, fixed_anchor, speed, uce
from advanchor.models.base import Base
from advanchor.models.profile import sampled_prompts
from advanchor.pocket.wide import HIDDEN
from advanchor.studies import evidence, rivals
from advanchor.studies.lab import Row, Size, Trial, concepts, text

FROM_NEUTRAL, FROM_SIMILAR = f"{rivals.OURS} from the neutral prompt", f"{rivals.OURS} from the similar concept"
PARTS: dict[str, dict[str, Any]] = {  # of our method, each taken out
    rivals.NO_SEARCH: {"anchor_steps": 0},
    "no margin": {"margin": 0.0},
    "no drift": {"drift": 0.0},
    "not beyond the anchor": {"beyond": 0.0},
    "no projection": {"retain_weight": 0.0},
    "from the concept": {"start": "own"},
    "from the neutral prompt": {"start": "superclass"},
}


def closed_forms(base: Base, concept: Concept) -> dict[str, MethodSettings]:
    """What uce and speed are tried with, on the long prompts."""
    kept = tuple(sampled_prompts(base.profile.vocabulary, rivals.UCE_RETAINED, 0, [concept.name, *HIDDEN]))
    known = {"retain": tuple(sampled_prompts(base.profile.vocabulary, 1000, 0, HIDDEN)), "retain_prompts": 0}
    found: dict[str, MethodSettings] = {}
    for tokens in ("last", "last_and_later"):
        found[f"uce, {tokens}"] = uce.Settings(tokens=tokens)
        found[f"uce, {tokens}, {rivals.UCE_RETAINED} prompts preserved"] = uce.Settings(tokens=tokens, retain=kept)
    tried = {
        "speed, as published but stronger": rivals.AUTHORS,
        "speed, wide": rivals.WIDE | {"scale": 4.0},
        "speed, wide, weaker": rivals.WIDE | {"scale": 3.3},
        "speed, wide, ridge 0.01": rivals.WIDE | {"ridge": 0.01},
    }
    return found | {label: speed.Settings(**settings, **known) for label, settings in tried.items()}


def ablation(base: Base, size: Size) -> list[Trial]:
    """Projection, anchor, step beyond and search, each alone, and our method without each of its parts."""

    def rows_for(concept: Concept) -> dict[str, rivals.Variant]:
        whole = rivals.projected(rivals.guarded(concept))
        parts = {part: rivals.guarded(concept, **changed) for part, changed in PARTS.items()}
        kept = {part: own if "retain_weight" in PARTS[part] else rivals.projected(own) for part, own in parts.items()}
        found: dict[str, rivals.Variant] = {rivals.OURS: (concept, whole)}
        found |= {part: (concept, settings) for part, settings in kept.items() if settings != whole}
        return found | alone(concept)

    return rivals.trials_of(rivals.listed(base, replace(size, per_kind=min(4, size.per_kind))), rows_for, size)


def alone(concept: Concept) -> dict[str, rivals.Variant]:
    """The neutral prompt as anchor, and what one part brings to it."""
    neutral = fixed_anchor.Settings(**rivals.trained(concept, 7e-4))
    start = rivals.FROM_NEUTRAL | {"retain_weight": 0.0}
    found: dict[str, MethodSettings] = {
        "nothing: the superclass": neutral,
        "the projection alone": rivals.projected(neutral),
        "the search alone": rivals.guarded(concept, 7e-4, **start | {"beyond": 0.0}),
        "the step beyond alone": rivals.guarded(concept, 7e-4, **start | {"anchor_steps": 0}),
    }
    if concept.similar:
        similar = rivals.nearest_anchor(concept, 7e-4)
        found |= {"the similar anchor alone": similar, "the similar anchor + projection": rivals.projected(similar)}
    return {label: (concept, settings) for label, settings in found.items()}


def tuning(base: Base, size: Size) -> list[Trial]:
    """Every trained method with every learning rate, bare and behind the projection, closed forms with other settings.

    On validation concepts. Of a kind that has only one of these, it is erased as often as others have concepts.
    """

    def tried(concept: Concept) -> dict[str, rivals.Variant]:
        rows = rivals.trained_rows(concept)
        if concept.kind in rivals.STARTED_SIMILAR:
            rows[FROM_NEUTRAL] = lambda lr: rivals.guarded(concept, lr, **rivals.FROM_NEUTRAL)
        elif concept.similar:
            rows[FROM_SIMILAR] = lambda lr: rivals.guarded(concept, lr, **rivals.FROM_SIMILAR)
        found: dict[str, rivals.Variant] = {}
        for lr in rivals.LRS:
            for label, make in rows.items():
                if rivals.OURS not in label:
                    found[f"{label}, lr {lr:g}"] = concept, make(lr)
                    label = rivals.PROJECTED.format(label)
                found[f"{label}, lr {lr:g}"] = concept, rivals.projected(make(lr))
            bare_esd = esd.Settings(**rivals.trained(concept, lr))
            found[f"{rivals.BARE_ESD}, lr {lr:g}"] = rivals.bare(concept), bare_esd
        found |= {label: (concept, settings) for label, settings in closed_forms(base, concept).items()}
        return found | {rivals.BARE_UCE: (rivals.bare(concept), uce.Settings())}

    found: list[Trial] = []
    for kind in ("style",) if size.quick else rivals.KINDS:
        chosen = concepts(base, kind, rivals.VALIDATION[kind][: size.per_kind])
        found += rivals.trials_of(chosen, tried, replace(size, seeds=max(size.seeds // len(chosen), 1)))
    return found[:: len(found) // 6] if size.quick else found


def best_rates(listed: Sequence[Row]) -> list[Row]:
    """Of each kind and method that has rates: the one that costs least, and whether it is the smallest or largest."""
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for row in listed:
        label, _, rate = row["method"].rpartition(", lr ")
        cost, key = row["degradation"][0], (row["kind"], label)
        if label and cost is not None and cost < best.get(key, (math.inf, 0.0))[0]:
            best[key] = cost, float(rate)
    ends = min(rivals.LRS), max(rivals.LRS)
    return [
        {"kind": kind, "best of": label, "rate": f"{rate:g}", "edge": "at an end" if rate in ends else "inside"}
        for (kind, label), (_, rate) in best.items()
    ]


def tuned(records: Sequence[Row]) -> list[Row]:
    listed = evidence.summary(records, rivals.OURS)
    return [*listed, *best_rates(listed)]


COLUMNS = evidence.COLUMNS | {"best of": ("method", text), "rate": ("best rate", text), "edge": ("in the grid", text)}
TUNING = replace(rivals.RIVALS, title="What each method wants", trials=tuning, columns=COLUMNS, summary=tuned)
ABLATION = replace(rivals.RIVALS, title="What each part brings", trials=ablation)
