"""Every method on every kind of concept, read at the same UA: what does it cost the rest of the model?"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from advanchor.concepts import Concept
from advanchor.evaluation import EvaluationSettings
from advanchor.methods import MethodSettings, adv_anchor, esd, fixed_anchor, guarded_anchor, uce
from advanchor.models.base import Base
from advanchor.pocket.world import OBJECTS, STYLES, people
from advanchor.retained import encode_all, meaning
from advanchor.studies.curves import COSTS, Curve, at_ua, curve, interval, mean_curve
from advanchor.studies.lab import Found, Trial, concepts
from advanchor.text import fill

TITLE = "Methods compared at the same UA"
TARGET_UA = 0.97
DOSES = (0.4, 0.6, 0.8, 1.25, 1.6, 2.0)
TEST_CONCEPTS: dict[str, tuple[str, ...]] = {  # none of them was used to choose settings
    "style": ("dotted", "gradient", "outlined", "checkered"),
    "object": ("heart", "triangle", "ring", "square"),
    "identity": tuple(person.name for person in people()[3:200:25]),
    "explicit": ("sigil",),
}
QUICK_KINDS = ("style",)
COMMON: dict[str, Any] = {"steps": 70, "batch_size": 4, "num_latents": 32}
LR = {"style": 7e-4, "object": 7e-4, "identity": 4e-4, "explicit": 1e-3}
SEARCH: dict[str, Any] = {"anchor_steps": 10}
ANCHOR_LR = {"style": 1.5e-3, "object": 1.5e-3, "identity": 1.5e-3, "explicit": 3e-3}


def methods_for(concept: Concept, similar: str | None) -> dict[str, MethodSettings]:
    """The rows of the table for one concept; those towards a similar concept only where there is one."""
    trained: dict[str, Any] = COMMON | {"lr": LR[concept.kind]}
    searched: dict[str, Any] = trained | SEARCH | {"anchor_lr": ANCHOR_LR[concept.kind]}
    found: dict[str, MethodSettings] = {
        "fixed_anchor, superclass": fixed_anchor.Settings(**trained),
        "fixed_anchor, empty prompt": fixed_anchor.Settings(**trained, anchor="empty"),
        "esd": esd.Settings(**trained),
        "uce": uce.Settings(tokens="last_and_later"),
        "adv_anchor, as in the paper": adv_anchor.Settings(**searched),
        "adv_anchor, later tokens too": adv_anchor.Settings(**searched, perturb_tokens="concept_and_later"),
        "guarded_anchor": guarded_anchor.Settings(**searched),
        "guarded_anchor, superclass, e_adv = 0": guarded_anchor.Settings(**trained, start="superclass", anchor_steps=0),
    }
    if similar:
        start: dict[str, Any] = {"start": "concept", "start_concept": similar}
        found |= {
            "fixed_anchor, similar": fixed_anchor.Settings(**trained, anchor="concept", anchor_concept=similar),
            "guarded_anchor, from similar": guarded_anchor.Settings(**searched, **start),
            "guarded_anchor, similar, e_adv = 0": guarded_anchor.Settings(**trained, **start, anchor_steps=0),
        }
    return found


def most_similar(base: Base, concept: Concept) -> str | None:
    """The concept of the same kind whose prompts mean most alike to the text encoder; the mark has none."""
    groups = {"style": STYLES, "object": OBJECTS, "identity": tuple(person.name for person in people())}
    others = [name for name in groups.get(concept.kind, ()) if name != concept.name]
    if not others:
        return None
    template = concept.templates[0]
    own, *rest = meaning(encode_all(base, [fill(template, name) for name in (concept.name, *others)]))
    return max(zip(others, rest, strict=True), key=lambda pair: float(pair[1] @ own))[0]


def evaluation(*, quick: bool) -> EvaluationSettings:
    few: dict[str, Any] = {"num_prompts": 2, "images_per_prompt": 1, "retained_images_per_prompt": 1, "steps": 2}
    many: dict[str, Any] = {"num_prompts": 24, "images_per_prompt": 2, "retained_images_per_prompt": 2, "steps": 10}
    return EvaluationSettings(**(few if quick else many), solver="dpm", doses=(2.0,) if quick else DOSES)


def trials(base: Base, *, per_kind: int, seeds: int, quick: bool) -> list[Trial]:
    found = []
    for kind in QUICK_KINDS if quick else TEST_CONCEPTS:
        for concept in concepts(kind, TEST_CONCEPTS[kind][:per_kind]):
            rows = methods_for(concept, most_similar(base, concept))
            found += [
                Trial(label, concept, shortened(settings) if quick else settings, seed)
                for label, settings in rows.items()
                for seed in range(seeds)
            ]
    return found


def shortened(settings: MethodSettings) -> MethodSettings:
    """The same method in next to no time, to see that everything runs."""
    fast = {"steps": 2, "anchor_steps": 1, "num_latents": 2, "latent_steps": 2, "retain_prompts": 10}
    return settings.model_copy(update={k: v for k, v in fast.items() if k in type(settings).model_fields})


def cost_at(name: str, ua: float) -> Any:
    """A function of curves: one cost of their mean curve where it reaches a UA."""

    def value(curves: Sequence[Curve]) -> float | None:
        reached = at_ua(mean_curve(curves), ua)
        return None if reached is None else getattr(reached, name)

    return value


def table(found: Sequence[Found]) -> list[dict[str, Any]]:
    """A row per kind and method: the dose that reaches the UA, and every cost there with its 95 % interval."""
    grouped: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    for one in found:
        grouped[one.trial.concept.kind, one.trial.label].append(curve(one.result["scores"]))
    rows = []
    for (kind, label), curves in sorted(grouped.items(), key=lambda item: list(TEST_CONCEPTS).index(item[0][0])):
        mean = mean_curve(curves)
        reached = at_ua(mean, TARGET_UA)
        row = {"kind": kind, "method": label, "erasures": len(curves), "ua_at_1": dose_1(mean).ua}
        row["dose"] = reached.dose if reached else None
        for name in COSTS:
            row[name] = getattr(reached, name) if reached else None
            row[f"{name}_interval"] = interval(curves, cost_at(name, TARGET_UA)) if row[name] is not None else None
        rows.append(row)
    return rows


def dose_1(points: Curve) -> Any:
    return next(point for point in points if point.dose == 1)


COLUMNS = {"degradation": "degradation", "alignment_loss": "alignment loss", "diversity_loss": "diversity loss",
           "ira_loss": "IRA loss", "cra_loss": "CRA loss"}  # fmt: skip


def page(found: Sequence[Found]) -> str:
    """Markdown."""
    rows = table(found)
    lines = [
        "| kind | method | erasures | UA at dose 1 | dose for UA 97 % | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (5 + len(COLUMNS)) + "|",
    ]
    for row in rows:
        dose = "not reached" if row["dose"] is None else f"{row['dose']:.2f}"
        costs = " | ".join(cell(name, row) for name in COLUMNS)
        lines.append(
            f"| {row['kind']} | {row['method']} | {row['erasures']} | {100 * row['ua_at_1']:.1f} | {dose} | {costs} |"
        )
    return "\n".join(lines) + "\n"


def cell(name: str, row: Mapping[str, Any]) -> str:
    """A cost and its interval; degradation and diversity as distances x 1000, the others in points."""
    factor = 1000 if name in ("degradation", "diversity_loss") else 100
    value, bounds = row[name], row[f"{name}_interval"]
    if value is None:
        return "–"
    around = f" ({factor * bounds[0]:.1f} to {factor * bounds[1]:.1f})" if bounds else ""
    return f"{factor * value:.1f}{around}"


def plot(found: Sequence[Found], figure: Any) -> None:
    """Degradation against UA on a matplotlib figure: a panel per kind, a line per method, everywhere in one colour."""
    from matplotlib import colormaps

    grouped: dict[str, dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        grouped[one.trial.concept.kind][one.trial.label].append(curve(one.result["scores"]))
    labels = list(dict.fromkeys(one.trial.label for one in found))
    figure.set_size_inches(4 * len(grouped), 5)
    lines = {}
    for axis, (kind, methods) in zip(figure.subplots(1, len(grouped), squeeze=False)[0], grouped.items(), strict=True):
        for label, curves in methods.items():
            points = mean_curve(curves)
            style = "-" if label.startswith("guarded") else "--"
            x, y = [100 * p.ua for p in points], [p.degradation for p in points]
            (lines[label],) = axis.plot(
                x, y, style, marker=".", color=colormaps["tab20"](labels.index(label)), label=label
            )
        axis.axvline(100 * TARGET_UA, color="0.8", zorder=0)
        axis.set(title=kind, xlabel="UA, %", ylabel="degradation", xlim=(-2, 102), ylim=(0, None))
    figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=len(grouped), fontsize="small")
