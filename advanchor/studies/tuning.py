"""How the comparison's settings were chosen, and what each part of our own method brings: read as the comparison is."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
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
AT = "{}, lr {:g}"  # the label of a method at a learning rate
GROWTH, LIMITS = 1.75, (2e-5, 2e-2)  # by how much a grid goes on beyond its end, and where it stops
SMALLEST, LARGEST = "the smallest", "the largest"
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


def at_rate(concept: Concept, lr: float) -> dict[str, rivals.Variant]:
    """Every trained method at one learning rate, bare and behind the projection; ours from both starts."""
    rows = rivals.trained_rows(concept)
    if concept.kind in rivals.STARTED_SIMILAR:
        rows[FROM_NEUTRAL] = lambda lr: rivals.guarded(concept, lr, **rivals.FROM_NEUTRAL)
    elif concept.similar:
        rows[FROM_SIMILAR] = lambda lr: rivals.guarded(concept, lr, **rivals.FROM_SIMILAR)
    found: dict[str, rivals.Variant] = {
        rivals.BARE_ESD: (rivals.bare(concept), esd.Settings(**rivals.trained(concept, lr)))
    }
    for label, make in rows.items():
        if rivals.OURS not in label:
            found[label] = concept, make(lr)
            label = rivals.PROJECTED.format(label)
        found[label] = concept, rivals.projected(make(lr))
    return found


def validated(
    base: Base, size: Size, tried: Callable[[Concept], dict[str, rivals.Variant]], kinds: Sequence[str] = rivals.KINDS
) -> list[Trial]:
    """What is tried on validation concepts; of a kind that has only one, as often as others have concepts."""
    found: list[Trial] = []
    for kind in kinds:
        chosen = concepts(base, kind, rivals.VALIDATION[kind][: size.per_kind])
        found += rivals.trials_of(chosen, tried, replace(size, seeds=max(size.seeds // len(chosen), 1)))
    return found


def tuning(base: Base, size: Size) -> list[Trial]:
    """Every trained method with every learning rate, closed forms with other settings."""

    def tried(concept: Concept) -> dict[str, rivals.Variant]:
        found = {AT.format(label, lr): own for lr in rivals.LRS for label, own in at_rate(concept, lr).items()}
        found |= {label: (concept, settings) for label, settings in closed_forms(base, concept).items()}
        return found | {rivals.BARE_UCE: (rivals.bare(concept), uce.Settings())}

    return validated(base, size, tried, ("style",) if size.quick else rivals.KINDS)


def further(base: Base, size: Size, records: Sequence[Row]) -> list[Trial]:
    """One more rate for every method whose best one lies at an end of its grid; nothing when all lie inside."""
    wanted = {} if size.quick else next_rates(best_rates(evidence.summary(records, rivals.OURS)))

    def tried(concept: Concept) -> dict[str, rivals.Variant]:
        own = {label: rate for (kind, label), rate in wanted.items() if kind == concept.kind}
        return {AT.format(label, rate): at_rate(concept, rate)[label] for label, rate in own.items()}

    return validated(base, size, tried, sorted({kind for kind, _ in wanted}))


def best_rates(listed: Sequence[Row]) -> list[Row]:
    """Of each kind and method that has rates: the one that costs least, and whether it is the smallest or largest."""
    costs: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
    for row in listed:
        label, _, rate = row["method"].rpartition(", lr ")
        if label:
            cost = row["degradation"][0]
            costs[row["kind"], label][float(rate)] = math.inf if cost is None else cost
    found = []
    for (kind, label), own in costs.items():
        best = min(own, key=own.__getitem__)
        if own[best] < math.inf:
            edge = SMALLEST if best == min(own) else LARGEST if best == max(own) else "inside"
            found.append({"kind": kind, "best of": label, "rate": f"{best:g}", "edge": edge})
    return found


def next_rates(best: Sequence[Row]) -> dict[tuple[str, str], float]:
    """(kind, method) -> the rate beyond the end at which its best one lies, up to LIMITS."""
    found = {}
    for row in best:
        rate = float(row["rate"])
        beyond = float(f"{rate / GROWTH if row['edge'] == SMALLEST else rate * GROWTH:.2g}")
        if row["edge"] in (SMALLEST, LARGEST) and LIMITS[0] <= beyond <= LIMITS[1]:
            found[row["kind"], row["best of"]] = beyond
    return found


def tuned(records: Sequence[Row]) -> list[Row]:
    listed = evidence.summary(records, rivals.OURS)
    return [*listed, *best_rates(listed)]


COLUMNS = evidence.COLUMNS | {"best of": ("method", text), "rate": ("best rate", text), "edge": ("in the grid", text)}
TUNING = replace(
    rivals.RIVALS, title="What each method wants", trials=tuning, columns=COLUMNS, summary=tuned, further=further
)
ABLATION = replace(rivals.RIVALS, title="What each part brings", trials=ablation)
