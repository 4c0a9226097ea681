"""Dose and response: what an erasure costs, read where every method erases equally much. Pure functions.

A delta can be put on at any scale. Its curve says, for some scales, what is erased and what it costs, so that
methods are compared at the same UA instead of at whatever scale their settings happen to end with.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, TypeVar

import torch

T = TypeVar("T")
COSTS = ("degradation", "alignment_loss", "diversity_loss", "ira_loss", "cra_loss")


@dataclass(frozen=True)
class Point:
    """One scale; losses are the base's figure minus the student's. None where a kind has no such figure."""

    scale: float
    ua: float
    degradation: float
    alignment_loss: float
    diversity_loss: float | None
    ira_loss: float | None
    cra_loss: float


Curve = Sequence[Point]


def curve(scores: Mapping[str, Any]) -> list[Point]:
    """The points of an evaluation with scales, by scale; the first is the base's own, at scale 0."""
    base = scores["base"]
    untouched = Point(0.0, base["ua"], 0.0, 0.0, None if base["diversity"] is None else 0.0, 0.0, 0.0)
    found = [(1.0, scores), *((float(scale), own) for scale, own in scores.get("scales", {}).items())]
    return [untouched, *(point(scale, own, base) for scale, own in sorted(found, key=lambda pair: pair[0]))]


def point(scale: float, own: Mapping[str, Any], base: Mapping[str, Any]) -> Point:
    def loss(name: str) -> Any:
        return None if own[name] is None or base[name] is None else base[name] - own[name]

    losses = {f"{name}_loss": loss(name) for name in ("alignment", "diversity", "ira", "cra")}
    return Point(scale, own["ua"], own["degradation"], **losses)


def mean_curve(curves: Sequence[Curve]) -> list[Point]:
    """Point by point; every curve has the same scales."""
    return [mean_point(points) for points in zip(*curves, strict=True)]


def mean_point(points: Sequence[Point]) -> Point:
    def mean(name: str) -> Any:
        known = [value for p in points if (value := getattr(p, name)) is not None]
        return sum(known) / len(known) if known else None

    return Point(**{field.name: mean(field.name) for field in fields(Point)} | {"scale": points[0].scale})


def at_ua(points: Curve, ua: float) -> Point | None:
    """Between the last point below `ua` and the first that reaches it, in proportion. None if none reaches it."""
    for before, after in pairwise(points):
        if before.ua < ua <= after.ua:
            part = (ua - before.ua) / (after.ua - before.ua)
            values = {field.name: between(before, after, field.name, part) for field in fields(Point)}
            return Point(**values)
    return None


def between(before: Point, after: Point, name: str, part: float) -> Any:
    a, b = getattr(before, name), getattr(after, name)
    return b if a is None or b is None else a + part * (b - a)


def interval(
    samples: Sequence[T], value: Callable[[Sequence[T]], float | None], draws: int = 1000
) -> tuple[float, float | None] | None:
    """The middle 95 % of a value over samples drawn again. A draw that has no value counts as infinitely large.

    None as the upper end: infinite. None altogether: of fewer than two samples, or if both ends are infinite.
    """
    if len(samples) < 2:
        return None
    generator = torch.Generator().manual_seed(0)
    found = []
    for picks in torch.randint(len(samples), (draws, len(samples)), generator=generator).tolist():
        drawn = value([samples[i] for i in picks])
        found.append(math.inf if drawn is None else drawn)
    found.sort()
    low, high = found[round(0.025 * (draws - 1))], found[round(0.975 * (draws - 1))]
    return None if math.isinf(low) else (low, None if math.isinf(high) else high)


Estimate = tuple[float | None, float | None, float | None]  # value, and the ends of its 95 % interval


def estimate(samples: Sequence[T], value: Callable[[Sequence[T]], float | None]) -> Estimate:
    """A value of all samples with its interval; None for what there is not."""
    middle = value(samples) if samples else None
    bounds = None if middle is None else interval(samples, value)
    low, high = bounds or (None, None)
    return middle, low, high


def mean_interval(values: Sequence[float]) -> Estimate:
    return estimate(values, lambda drawn: sum(drawn) / len(drawn))
