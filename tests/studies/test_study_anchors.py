"""How similarity goes with what an erasure does, by hand."""

import pytest

from advanchor.studies.anchors import spearman

UP = [("a", 0.1, 5.0), ("a", 0.2, 6.0), ("a", 0.9, 7.0)]


def test_ranks_are_taken_within_a_concept() -> None:
    higher = [("b", x, y + 100) for _, x, y in UP]  # another concept on another level
    assert spearman(UP) == pytest.approx(1) and spearman([*UP, *higher]) == pytest.approx(1)
    assert spearman([(name, x, -y) for name, x, y in UP]) == pytest.approx(-1)


def test_ties_share_a_rank_and_what_does_not_vary_has_no_correlation() -> None:
    # ranks of x: 0, .5, 1; of y: .25, .25, 1. Deviations (-.5, 0, .5) and (-.25, -.25, .5): .375 / sqrt(.5 * .375).
    assert spearman([("a", 1, 2.0), ("a", 2, 2.0), ("a", 3, 9.0)]) == pytest.approx(0.375 / (0.5 * 0.375) ** 0.5)
    assert spearman([("a", 1, 2.0), ("a", 2, 2.0)]) is None
