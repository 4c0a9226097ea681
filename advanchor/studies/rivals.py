"""Every method on every kind of concept, read at the same UA: what does it cost the rest of the model?"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from advanchor.concepts import Concept
from advanchor.evaluation import EvaluationSettings
from advanchor.methods import MethodSettings, adv_anchor, esd, fixed_anchor, guarded_anchor, speed, uce
from advanchor.models.base import Base
from advanchor.pocket.world import people
from advanchor.retained import own_vocabulary, sampled_prompts
from advanchor.studies.curves import COSTS, Curve, Point, at_ua, curve, estimate, mean_curve
from advanchor.studies.lab import (
    Found,
    Row,
    Scale,
    Study,
    Trial,
    around,
    concepts,
    crossed,
    number,
    percent,
    text,
    thousandths,
)

FOLDER = "comparison"
TARGET_UA = 0.97
DOSES = (0.6, 1.4, 2.0)
PICTURES: dict[str, Any] = {
    "num_prompts": 24, "images_per_prompt": 1, "num_retained": 20, "retained_images_per_prompt": 2,
    "solver": "dpm", "steps": 6,
}  # fmt: skip
EVALUATION = EvaluationSettings(**PICTURES, doses=DOSES)
TEST_CONCEPTS: dict[str, tuple[str, ...]] = {  # none of them was used to choose settings
    "style": ("dotted", "gradient", "outlined", "checkered"),
    "object": ("heart", "triangle", "ring", "square"),
    "identity": tuple(person.name for person in people()[3:200:25]),
    "explicit": ("sigil",),
}
SUPERCLASS, SIMILAR, PAPER, LATER = (
    "fixed_anchor, superclass", "fixed_anchor, similar", "adv_anchor, as in the paper", "adv_anchor, later tokens too",
)  # fmt: skip
OURS, NO_SEARCH = "guarded_anchor", "guarded_anchor, e_adv = 0"
VALIDATION: dict[str, tuple[str, ...]] = {  # settings are chosen on these; there is only one mark
    "style": ("striped",),
    "object": ("star", "circle", "diamond"),
    "identity": tuple(people()[i].name for i in (10, 60, 110)),
    "explicit": ("sigil",),
}
LRS = (7e-4, 2e-3)  # what every trained method is tried with
FASTER = {"style": (OURS,)}  # since it then erases more as trained; at UA 97 the first costs less, or as much, for all
KINDS = tuple(TEST_CONCEPTS)
WIDE: dict[str, Any] = {
    "projections": "keys_and_values", "tokens": "last_and_later", "retain_tokens": "all", "augment": 0,
    "threshold": 0.01, "ridge": 0.05,
}  # fmt: skip
AUTHORS = {"strength": 1.7}  # the authors' own settings, but stronger
SPEED: dict[str, dict[str, Any]] = {  # the best of closed_forms in `advanchor study tuning`
    "style": WIDE | {"strength": 4.0},
    "object": WIDE | {"strength": 4.0},
    "identity": WIDE | {"ridge": 0.01},
    "explicit": AUTHORS,
}
UCE_PRESERVED = 100  # prompts of the base's own world
UCE: dict[str, tuple[Literal["last", "last_and_later"], bool]] = {  # likewise: tokens, whether prompts are preserved
    "style": ("last_and_later", False),
    "object": ("last_and_later", False),
    "identity": ("last_and_later", True),
    "explicit": ("last", False),
}
ANCHOR_LR = {"style": 1.5e-3, "object": 1.5e-3, "identity": 1.5e-3, "explicit": 3e-3}
FROM_NEUTRAL: dict[str, Any] = {"start": "superclass", "anchor_steps": 5, "margin": 0.3, "anchor_lr": 3e-3}
FROM_SIMILAR: dict[str, Any] = {"start": "similar", "anchor_steps": 10, "margin": 0.5, "anchor_lr": 3e-3}
STARTED_SIMILAR = ("object", "identity")  # kinds whose search starts at the most similar concept


def trained(concept: Concept, lr: float) -> dict[str, Any]:
    """What all that is trained has in common."""
    return {"steps": 70, "batch_size": 4, "num_latents": 32, "lr": lr}


def chosen_lr(label: str, concept: Concept) -> float:
    """The first of LRS or the second, as validation concepts want it."""
    return LRS[label in FASTER.get(concept.kind, ())]


def adversarial(concept: Concept, lr: float | None = None, **changed: Any) -> adv_anchor.Settings:
    """The paper's method, also on the tokens after the concept."""
    searched = {"anchor_steps": 10, "anchor_lr": ANCHOR_LR[concept.kind], "perturb_tokens": "concept_and_later"}
    return adv_anchor.Settings(**trained(concept, lr or chosen_lr(LATER, concept)) | searched | changed)


def guarded(concept: Concept, lr: float | None = None, **changed: Any) -> guarded_anchor.Settings:
    """Our method as it was tuned: where its search starts differs by kind."""
    searched = FROM_SIMILAR if concept.kind in STARTED_SIMILAR else FROM_NEUTRAL
    return guarded_anchor.Settings(**trained(concept, lr or chosen_lr(OURS, concept)) | searched | changed)


def trained_rows(concept: Concept) -> dict[str, Callable[[float], MethodSettings]]:
    """Every method that is trained, by its learning rate; towards a similar concept only where there is one."""
    found: dict[str, Callable[[float], MethodSettings]] = {
        SUPERCLASS: lambda lr: fixed_anchor.Settings(**trained(concept, lr)),
        "esd": lambda lr: esd.Settings(**trained(concept, lr)),
        PAPER: lambda lr: adversarial(concept, lr, perturb_tokens="concept"),
        LATER: lambda lr: adversarial(concept, lr),
        OURS: lambda lr: guarded(concept, lr),
    }
    if concept.similar:
        found[SIMILAR] = lambda lr: fixed_anchor.Settings(**trained(concept, lr), anchor="concept")
    return found


def methods_for(base: Base, concept: Concept) -> dict[str, MethodSettings]:
    """The rows of the table for one concept: every method as it was tuned, and ours without its search."""
    found = {label: make(chosen_lr(label, concept)) for label, make in trained_rows(concept).items()}
    tokens, preserved = UCE[concept.kind]
    found["uce"] = uce.Settings(tokens=tokens, preserve=preserved_prompts(base, concept) if preserved else ())
    found["speed"] = speed.Settings(**SPEED[concept.kind])
    return found | {NO_SEARCH: guarded(concept, anchor_steps=0)}


def trials(base: Base, scale: Scale) -> list[Trial]:
    kinds = ("style",) if scale.quick else KINDS
    listed = [c for kind in kinds for c in concepts(base, kind, TEST_CONCEPTS[kind][: scale.per_kind])]
    return crossed(listed, lambda concept: methods_for(base, concept), scale)


def preserved_prompts(base: Base, concept: Concept) -> tuple[str, ...]:
    """What uce preserves, where it preserves anything: sampled prompts that do not mention the concept."""
    return tuple(sampled_prompts(own_vocabulary(base.name), UCE_PRESERVED, 0, [concept.name]))


def cost_at(name: str, ua: float) -> Callable[[Sequence[Curve]], float | None]:
    """Of curves: one cost of their mean curve where it reaches a UA; None if it does not."""

    def value(curves: Sequence[Curve]) -> float | None:
        reached = at_ua(mean_curve(curves), ua)
        return None if reached is None else getattr(reached, name)

    return value


def ratio(pairs: Sequence[tuple[Curve, Curve]]) -> float | None:
    """How many times as much degradation the first of each pair costs as the second, both at the same UA.

    None if the first does not get there, however much it costs; 0 if only the second does not.
    """
    cost = cost_at("degradation", TARGET_UA)
    theirs, ours = (cost([pair[i] for pair in pairs]) for i in (0, 1))
    if theirs is None:
        return None
    return 0.0 if ours is None else theirs / ours


def rows(base: Base, found: Sequence[Found], scale: Scale) -> list[Row]:
    """A row per kind and method: the dose that reaches the UA, and every cost there, with 95 % intervals.

    Erasures of the same concept and seed are compared with each other.
    """
    grouped: dict[str, dict[str, dict[tuple[str, int], Curve]]] = defaultdict(lambda: defaultdict(dict))
    for one in found:
        trial = one.trial
        grouped[trial.concept.kind][trial.label][trial.concept.name, trial.seed] = curve(one.scores)
    listed = []
    for kind, methods in grouped.items():
        for label, own in methods.items():
            curves = list(own.values())
            mean = mean_curve(curves)
            reached = at_ua(mean, TARGET_UA)
            ours = methods.get(OURS, {})
            pairs = [(own[key], ours[key]) for key in own if key in ours]
            listed.append(
                {"kind": kind, "method": label, "erasures": len(curves), "dose": reached.dose if reached else None}
                | {"ua_at_1": next(p for p in mean if p.dose == 1).ua, "ua_at_most": mean[-1].ua}
                | {name: estimate(curves, cost_at(name, TARGET_UA)) for name in COSTS}
                | {
                    "ratio": estimate(pairs, ratio) if pairs and label != OURS else None,
                    "curve": [vars(p) for p in mean],
                }
            )
    return listed


COLUMNS = {
    "kind": ("kind", text),
    "method": ("method", text),
    "erasures": ("erasures", text),
    "ua_at_1": ("UA at dose 1", percent),
    "ua_at_most": ("UA at dose 2", percent),
    "dose": ("dose for UA 97", number),
    "degradation": ("degradation", around(thousandths)),
    "ratio": (f"relative to {OURS}", around(number)),
    "alignment_loss": ("alignment loss", around(percent)),
    "diversity_loss": ("diversity loss", around(thousandths)),
    "ira_loss": ("IRA loss", around(percent)),
    "cra_loss": ("CRA loss", around(percent)),
}


def plot(listed: Sequence[Row], figure: Any) -> None:
    """Degradation against UA on a matplotlib figure: a panel per kind, a line per method, everywhere in one colour."""
    from matplotlib import colormaps

    kinds, labels = (list(dict.fromkeys(row[key] for row in listed)) for key in ("kind", "method"))
    figure.set_size_inches(4 * len(kinds), 5)
    lines = {}
    for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for row in (row for row in listed if row["kind"] == kind):
            points, label = [Point(**point) for point in row["curve"]], row["method"]
            colour = colormaps["tab10" if len(labels) <= 10 else "tab20"](labels.index(label))
            style = "-" if label == OURS else "--"
            x, y = [100 * p.ua for p in points[1:]], [1000 * p.degradation for p in points[1:]]
            (lines[label],) = axis.plot(x, y, style, marker=".", color=colour, label=label)
        axis.axvline(100 * TARGET_UA, color="0.8", zorder=0)
        axis.set(title=kind, xlabel="UA, %", ylabel="degradation x 1000", xlim=(-2, 102), yscale="log")
    figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=len(kinds), fontsize="small")


EXPLAINED = (
    "Each delta is scaled (its dose) until 97 % of pictures for the concept no longer show it; costs are read there,\n"
    "between doses in proportion. Degradation and diversity loss: distances in classifier features, x 1000; other\n"
    "losses: points. In brackets: 95 % intervals over erasures. –: that UA is not reached, or there is no such figure."
)
RIVALS = Study("Methods compared at the same UA", trials, EVALUATION, rows, COLUMNS, plot, FOLDER, EXPLAINED)
