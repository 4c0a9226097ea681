"""How a comparison is read: a record per erasure and scale, and tables that are pure functions of the records.

Every erasure is read at its own scale, the one at which its concept is gone from a share of its pictures. The unit is
the concept: what is told of a method is the median over concepts, and an interval draws concepts again, with all seeds
of each.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from statistics import median
from typing import Any

from advanchor.studies.curves import Curve, Estimate, Point, at_ua, curve, estimate
from advanchor.studies.lab import Found, Row, around, number, percent, text, thousandths

TARGET, TARGETS = 0.97, (0.8, 0.9, 0.97, 0.99)
LOSSES = ("degradation", "ira_loss", "cra_loss", "alignment_loss", "diversity_loss")
SMALLEST = 1e-9  # degradation that a ratio is taken over
POINT = tuple(field.name for field in fields(Point))

Erasures = Mapping[str, Sequence[Curve]]  # concept -> a curve for each seed


def records(found: Sequence[Found]) -> list[Row]:
    """A row per erasure and scale; the base's own, at scale 0, begins each erasure."""
    rows = []
    for one in found:
        trial, scores = one.trial, one.scores
        whose = {"kind": trial.concept.kind, "method": trial.label, "concept": trial.concept.name, "seed": trial.seed}
        at_scale = {1.0: scores, **{float(scale): own for scale, own in scores.get("scales", {}).items()}}
        for point in curve(scores):
            row = whose | vars(point)
            own = at_scale.get(point.scale, {})
            if "tags" in own:
                row |= {"tags": own["tags"], "strangeness": own["strangeness"] - own["base_strangeness"]}
            rows.append(row)
    return rows


def curves_of(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Erasures]:
    """(kind, method) -> concept -> curves."""
    grouped: dict[tuple[str, str], dict[str, dict[int, list[Point]]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        seeds = grouped[row["kind"], row["method"]][row["concept"]]
        seeds.setdefault(row["seed"], []).append(Point(**{name: row[name] for name in POINT}))
    return {
        key: {concept: [monotone(points) for points in seeds.values()] for concept, seeds in concepts.items()}
        for key, concepts in grouped.items()
    }


def monotone(points: Curve) -> list[Point]:
    """The curve with each UA at least that of any smaller scale: more of a delta erases no less."""
    found, highest = [], -math.inf
    for point in sorted(points, key=lambda point: point.scale):
        highest = max(highest, point.ua)
        found.append(Point(**vars(point) | {"ua": highest}))
    return found


def read(points: Curve, name: str, target: float) -> float | None:
    """One figure of an erasure at its own scale for a UA; None if that UA is not reached, or there is no figure."""
    reached = at_ua(points, target)
    return None if reached is None else getattr(reached, name)


def middle(concepts: Sequence[Sequence[float | None]]) -> float | None:
    """The median over concepts of the median over seeds; None if it is of those that are not reached."""
    known = [median(math.inf if value is None else value for value in seeds) for seeds in concepts]
    found = median(known)
    return None if math.isinf(found) or math.isnan(found) else found


def told(own: Erasures, name: str, target: float) -> Estimate | None:
    """A figure at a UA: median and interval over concepts. None if no erasure has such a figure."""
    values = [[read(points, name, target) for points in curves] for curves in own.values()]
    if name != "degradation" and all(value is None for seeds in values for value in seeds):
        return None
    return estimate(values, middle)


def ratios(theirs: Erasures, ours: Erasures, target: float) -> list[list[float | None]]:
    """By concept and seed, theirs over ours, of degradation at a UA; of what neither reaches, nothing.

    None: they do not reach it; 0: only they do.
    """
    found = []
    for concept, curves in theirs.items():
        pairs = [
            (read(a, "degradation", target), read(b, "degradation", target))
            for a, b in zip(curves, ours.get(concept, ()), strict=False)
        ]
        told = [
            None if a is None else 0.0 if b is None else a / max(b, SMALLEST)
            for a, b in pairs
            if (a, b) != (None, None)
        ]
        if told:
            found.append(told)
    return found


def ratio(theirs: Erasures, ours: Erasures, target: float) -> Estimate:
    found = ratios(theirs, ours, target)
    return estimate(found, middle) if found else (None, None, None)


def summary(rows: Sequence[Mapping[str, Any]], ours: str) -> list[Row]:
    """A row per kind and method."""
    grouped, listed = curves_of(rows), []
    for (kind, method), own in grouped.items():
        everyone = [points for curves in own.values() for points in curves]
        reached = [read(points, "scale", TARGET) for points in everyone]
        compared = grouped.get((kind, ours)) if method != ours else None
        trained = [p.ua for points in everyone for p in points if p.scale == 1]
        listed.append(
            {
                "kind": kind,
                "method": method,
                "concepts": len(own),
                "reached": f"{sum(scale is not None for scale in reached)} of {len(reached)}",
                "ua": sum(trained) / len(trained),
                "scale": middle([[value] for value in reached]),
                "ratio": ratio(own, compared, TARGET) if compared else None,
                **{name: told(own, name, TARGET) for name in LOSSES},
                **near(rows, kind, method, own),
            }
        )
    return listed


def near(rows: Sequence[Mapping[str, Any]], kind: str, method: str, own: Erasures) -> Row:
    """What each tag's pictures have lost, and how strange pictures are, at the next larger scale that was measured."""
    lost: dict[str, list[float]] = defaultdict(list)
    strange: list[float] = []
    for row in chosen(rows, kind, method, own):
        strange.append(row["strangeness"])
        for tag, seen in row["tags"].items():
            lost[tag].append(seen["base_right"] - seen["right"])
    found: Row = {key: None for key in COLUMNS if key.startswith("lost: ")} | {"strangeness": None}
    found |= {f"lost: {tag}": sum(values) / len(values) for tag, values in lost.items()}
    return found | ({"strangeness": sum(strange) / len(strange)} if strange else {})


def chosen(rows: Sequence[Mapping[str, Any]], kind: str, method: str, own: Erasures) -> list[Mapping[str, Any]]:
    """Of each erasure the record at the first measured scale that reaches the target, where it has tags."""
    found, done = [], set()
    wanted = (row for row in rows if (row["kind"], row["method"]) == (kind, method) and row["concept"] in own)
    for row in sorted(wanted, key=lambda row: row["scale"]):
        key = row["concept"], row["seed"]
        if key not in done and row["ua"] >= TARGET and "tags" in row:
            done.add(key)
            found.append(row)
    return found


def cost(own: Erasures) -> float | None:
    """Median degradation at the target; None if the median does not get there."""
    return middle([[read(points, "degradation", TARGET) for points in curves] for curves in own.values()])


def by_target(rows: Sequence[Mapping[str, Any]], ours: str, without: Callable[[str], bool]) -> list[Row]:
    """By kind: the rival of `without` that costs least at UA 97, and its cost over ours at every target."""
    grouped, listed = curves_of(rows), []
    for kind in dict.fromkeys(kind for kind, _ in grouped):
        rivals = {m: own for (k, m), own in grouped.items() if k == kind and without(m)}
        mine = grouped.get((kind, ours))
        costs = {m: value for m, own in rivals.items() if (value := cost(own)) is not None}
        if mine and costs:
            best = min(costs, key=lambda method: costs[method])
            found = {f"at {100 * target:.0f}": ratio(rivals[best], mine, target) for target in TARGETS}
            listed.append({"kind": kind, "best rival": best, "of": len(rivals), **found})
    return listed


COLUMNS = {
    "kind": ("kind", text),
    "method": ("method", text),
    "concepts": ("concepts", text),
    "best rival": ("best rival at UA 97", text),
    "of": ("of so many", text),
    "reached": ("UA 97 reached", text),
    "ua": ("UA at scale 1", percent),
    "scale": ("scale for UA 97", number),
    "degradation": ("degradation", around(thousandths)),
    "ratio": ("relative to ours", around(number)),
    "ira_loss": ("IRA loss", around(percent)),
    "cra_loss": ("CRA loss", around(percent)),
    "alignment_loss": ("alignment loss", around(percent)),
    "diversity_loss": ("diversity loss", around(thousandths)),
    "lost: told": ("told names lost", percent),
    "lost: hidden": ("hidden names lost", percent),
    "lost: namesake": ("namesakes lost", percent),
    **{f"lost: {n} parts": (f"lost at {n} parts", percent) for n in range(3, 8)},
    "lost: same family": ("same family lost", percent),
    "lost: other family": ("other family lost", percent),
    "lost: other style": ("other styles lost", percent),
    "strangeness": ("strangeness", thousandths),
    **{f"at {100 * target:.0f}": (f"rival / ours at UA {100 * target:.0f}", around(number)) for target in TARGETS},
}
EXPLAINED = """\
Each erasure is read at its own scale: the one at which the concept is gone from 97 % of its pictures, interpolated
between the scales that were measured. Figures are medians over concepts; in brackets, 95 % intervals of concepts drawn
again. Degradation: distance of retained pictures from the base's in classifier features, x 1000. Lost: percent of
pictures right with the base, less those right after erasing, at the next larger scale that was measured. Strangeness:
how much farther than the base's the concept's pictures are from any drawn picture, x 1000. Half of the prompts are in
wordings that no caption has. Hidden: no method is told of these names. –: that UA is not reached, or there is no such
figure. The best rival is the cheapest of several noisy ones: its figure is, if anything, too low."""


def plot(listed: Sequence[Row], figure: Any) -> None:
    """Degradation at UA 97 with its interval, by method; a panel per kind."""
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = [row for row in listed if "method" in row]
    kinds, labels = (list(dict.fromkeys(row[key] for row in shown)) for key in ("kind", "method"))
    figure.set_size_inches(4 * len(kinds) + 2, 1.5 + 0.35 * len(labels))
    axes = figure.subplots(1, len(kinds), squeeze=False, sharex=True, sharey=True)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        for row in (row for row in shown if row["kind"] == kind and row["degradation"][0] is not None):
            value, low, high = (None if end is None else 1000 * end for end in row["degradation"])
            place = labels.index(row["method"])
            axis.plot([value], [place], "o", color="tab:blue")
            axis.plot([low or value, high or value], [place, place], "-", color="tab:blue")
        axis.set(title=kind, xlabel="degradation x 1000", yticks=range(len(labels)), yticklabels=labels)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", alpha=0.3)
    figure.gca().invert_yaxis()
