"""Dose and response, by hand."""

from typing import Any

import pytest

from advanchor.studies.curves import Point, at_ua, curve, interval, mean_curve


def own(ua: float, degradation: float, alignment: float = 0.9, ira: float | None = 0.8) -> dict[str, Any]:
    return {
        "ua": ua, "degradation": degradation, "alignment": alignment, "diversity": 0.5, "ira": ira, "cra": 0.95,
    }  # fmt: skip


def scores(*scales: tuple[float, dict[str, Any]], at_1: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    return at_1 | {"base": base, "scales": {f"{scale:g}": own for scale, own in scales}}


BASE = own(0.0, 0.0, alignment=1.0, ira=1.0)
FULL = scores((2.0, own(1.0, 0.4)), (0.5, own(0.25, 0.1, alignment=1.0)), at_1=own(0.75, 0.2), base=BASE)


def test_a_curve_starts_at_the_base_and_goes_by_dose() -> None:
    points = curve(FULL)
    assert [(p.scale, p.ua, p.degradation) for p in points] == [
        (0.0, 0.0, 0.0), (0.5, 0.25, 0.1), (1.0, 0.75, 0.2), (2.0, 1.0, 0.4),
    ]  # fmt: skip
    assert points[2].alignment_loss == pytest.approx(0.1) and points[2].ira_loss == pytest.approx(0.2)
    assert points[1].alignment_loss == 0


def test_costs_are_read_in_proportion_between_two_doses() -> None:
    # UA .875 lies half way from scale 1 (.75) to scale 2 (1.0): degradation half way from .2 to .4.
    reached = at_ua(curve(FULL), 0.875)
    assert reached is not None
    assert (reached.scale, reached.ua, reached.degradation) == pytest.approx((1.5, 0.875, 0.3))


def test_what_is_never_reached_is_none() -> None:
    assert at_ua(curve(scores(at_1=own(0.6, 0.1), base=BASE)), 0.9) is None


def test_the_mean_of_two_curves_leaves_out_what_one_of_them_lacks() -> None:
    a = [Point(1.0, 0.5, 0.1, 0.0, 0.0, None, 0.0)]
    b = [Point(1.0, 0.7, 0.3, 0.2, 0.0, 0.4, 0.0)]
    (mean,) = mean_curve([a, b])
    assert (mean.ua, mean.degradation, mean.alignment_loss, mean.ira_loss) == pytest.approx((0.6, 0.2, 0.1, 0.4))


def test_an_interval_holds_the_value_and_is_as_wide_as_the_curves_differ() -> None:
    def curves(*degradations: float) -> list[list[Point]]:
        return [curve(scores(at_1=own(1.0, value), base=BASE)) for value in degradations]

    def value(drawn: Any) -> float | None:
        reached = at_ua(mean_curve(drawn), 1.0)
        return None if reached is None else reached.degradation

    assert interval(curves(0.2, 0.2, 0.2), value) == pytest.approx((0.2, 0.2))
    ends = interval(curves(0.1, 0.2, 0.3, 0.4), value)
    assert ends is not None and ends[1] is not None
    assert 0.1 <= ends[0] < 0.25 < ends[1] <= 0.4
    never = curve(scores(at_1=own(0.1, 0.1), base=BASE))  # in every draw that has it, the UA is not reached
    assert interval([*curves(0.1), never], value) == (pytest.approx(0.1), None)
    assert interval([never, never], value) is None and interval(curves(0.1), value) is None
