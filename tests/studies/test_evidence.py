"""How a comparison is read, worked by hand."""

from typing import Any

import pytest

from advanchor.models import load
from advanchor.studies.curves import Point
from advanchor.studies.evidence import by_target, monotone, ratio, read, summary, told
from advanchor.studies.lab import Size
from advanchor.studies.tuning import best_rates, further, next_rates


def point(scale: float, ua: float, degradation: float) -> Point:
    return Point(scale, ua, degradation, 0.0, None, 0.0, 0.0)


def rows(method: str, concept: str, *points: Point, seed: int = 0) -> list[dict[str, Any]]:
    whose = {"kind": "style", "method": method, "concept": concept, "seed": seed}
    return [whose | vars(one) for one in points]


def erasure(cost: float, seen: float = 1.0) -> list[Point]:
    """UA rises from 0 to `seen` at scale 1, degradation in proportion, to `cost`."""
    return [point(0.0, 0.0, 0.0), point(1.0, seen, cost)]


def test_more_of_a_delta_erases_no_less() -> None:
    """.8, then .6, then 1: the second counts as .8, and UA .9 lies half way from there to the third."""
    points = monotone([point(2.0, 1.0, 0.6), point(0.5, 0.8, 0.1), point(1.0, 0.6, 0.2)])
    assert [p.ua for p in points] == [0.8, 0.8, 1.0]
    assert read(points, "scale", 0.9) == pytest.approx(1.5) and read(points, "degradation", 0.9) == pytest.approx(0.4)


def test_each_erasure_is_read_at_its_own_scale_and_one_stubborn_one_does_not_move_the_median() -> None:
    own = {"a": [erasure(0.1)], "b": [erasure(0.2)], "c": [erasure(0.3, seen=0.5)]}  # c never reaches UA 97
    value, low, high = told(own, "degradation", 0.97) or (None, None, None)
    assert value == pytest.approx(0.97 * 0.2)  # of .097, .194 and what is above everything
    assert low == pytest.approx(0.97 * 0.1) and high is None


def test_intervals_draw_concepts_and_not_erasures() -> None:
    """Three seeds of one concept are one concept: there is no interval. Of two, a draw has either or both."""
    assert told({"a": [erasure(0.1), erasure(0.2), erasure(0.9)]}, "degradation", 0.97) == (
        pytest.approx(0.97 * 0.2),
        None,
        None,
    )
    two = {"a": [erasure(0.1), erasure(0.1), erasure(0.1)], "b": [erasure(0.3)]}
    assert told(two, "degradation", 0.97) == pytest.approx((0.97 * 0.2, 0.97 * 0.1, 0.97 * 0.3))


def test_a_ratio_pairs_concepts() -> None:
    """a: .2 against .1 = 2; b: .9 against .3 = 3; the median 2.5. Of c neither reaches the UA: it says nothing."""
    never = [erasure(0.5, seen=0.5)]
    theirs = {"a": [erasure(0.2)], "b": [erasure(0.9)], "c": never}
    ours = {"a": [erasure(0.1)], "b": [erasure(0.3)], "c": never}
    assert ratio(theirs, ours, 0.97)[0] == pytest.approx(2.5)
    assert ratio({"a": never}, ours, 0.97)[0] is None  # they do not get there, whatever it costs
    assert ratio({"c": [erasure(0.5)]}, ours, 0.97)[0] == 0.0  # only they do


def test_a_summary_counts_what_reaches_the_target_and_reads_tags_there() -> None:
    tags = {"hidden": {"pictures": 4, "right": 0.5, "base_right": 1.0, "moved": 0.1}}
    found = rows("ours", "a", *erasure(0.1)) + rows("ours", "b", *erasure(0.2, seen=0.5))
    found[1] |= {"tags": tags, "strangeness": 0.01}
    (row,) = summary(found, "ours")
    assert (row["concepts"], row["reached"], row["ua"]) == (2, "1 of 2", 0.75)
    assert row["lost: hidden"] == 0.5 and row["strangeness"] == 0.01 and row["ratio"] is None


def test_the_best_rival_is_the_cheapest_of_those_that_count() -> None:
    found = [
        *rows("ours", "a", *erasure(0.1)),
        *rows("near", "a", *erasure(0.3)),
        *rows("far", "a", *erasure(0.9)),
        *rows("near + projection", "a", *erasure(0.05)),
    ]
    (row,) = by_target(found, "ours", lambda method: method in ("near", "far"))
    assert row["best rival"] == "near" and row["of"] == 2
    assert row["at 80"][0] == pytest.approx(3.0) and row["at 97"][0] == pytest.approx(3.0)


def test_a_best_rate_at_an_end_of_the_grid_is_told() -> None:
    def row(method: str, cost: float | None) -> dict[str, Any]:
        return {"kind": "style", "method": method, "degradation": (cost, None, None)}

    found = best_rates(
        [
            row("esd, lr 0.00023", 0.1),
            row("esd, lr 0.0007", 0.2),
            row("far, lr 0.00023", None),
            row("far, lr 0.0004", 1.0),
            row("far, lr 0.002", 2.0),
            row("near, lr 0.0007", 2.0),
            row("near, lr 0.002", 1.0),
            row("never, lr 0.002", None),
        ]
    )
    assert [(r["best of"], r["rate"], r["edge"]) for r in found] == [
        ("esd", "0.00023", "the smallest"),
        ("far", "0.0004", "inside"),
        ("near", "0.002", "the largest"),
    ]
    assert next_rates(found) == {("style", "esd"): 1.3e-4, ("style", "near"): 3.5e-3}
    assert not next_rates([{"kind": "style", "best of": "esd", "rate": "2.1e-05", "edge": "the smallest"}])


def test_a_grid_grows_by_the_same_method_on_validation_concepts() -> None:
    records = [*rows("esd, lr 0.00023", "striped", *erasure(0.1)), *rows("esd, lr 0.0007", "striped", *erasure(0.3))]
    (trial,) = further(load("pocket"), Size(1, 1), records)
    settings: Any = trial.method
    assert (trial.label, trial.concept.name, settings.lr) == ("esd, lr 0.00013", "striped", 1.3e-4)
    inside = [*records, *rows("esd, lr 0.00013", "striped", *erasure(0.2))]
    assert not further(load("pocket"), Size(1, 1), inside)
