"""Alignment, diversity, Frechet distance and bootstrap intervals, worked by hand."""

import pytest
import torch

from advanchor.evaluation.exam import Question
from advanchor.evaluation.metrics import alignment, bootstrap_interval, diversity, frechet_distance


def test_a_picture_is_aligned_when_all_that_is_named_is_there() -> None:
    questions = [
        Question("a red star", {"colour": "red", "object": "star"}),
        Question("a ring", {"object": "ring"}),
    ] * 2
    answers = [
        {"colour": "red", "object": "star"},
        {"colour": "blue", "object": "ring"},
        {"colour": "blue", "object": "star"},
        {"colour": "red", "object": "star"},
    ]
    assert alignment(questions, answers) == 0.5
    assert alignment([], []) is None


def test_diversity_is_the_mean_distance_within_a_prompt() -> None:
    first = [[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]  # distances 5, 5, 0
    second = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    assert diversity(torch.tensor(first + second), copies=3) == pytest.approx((10 / 3 + 0) / 2)
    assert diversity(torch.tensor(first), copies=1) is None


def test_frechet_distance_of_shifted_and_of_stretched_points() -> None:
    points = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # covariance 4/3 on the diagonal
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(points, points + torch.tensor([3.0, 4.0])) == pytest.approx(25)
    # variances 4/3 and 12 along the second axis: 4/3 + 12 - 2 sqrt(4/3 * 12) = 16/3
    assert frechet_distance(points, points * torch.tensor([1.0, 3.0])) == pytest.approx(16 / 3)


def test_an_interval_holds_the_mean_and_narrows_with_more_values() -> None:
    low, high = bootstrap_interval([0.0, 1.0] * 10)
    assert 0.2 < low < 0.5 < high < 0.8
    more_low, more_high = bootstrap_interval([0.0, 1.0] * 100)
    assert more_high - more_low < (high - low) / 2
    assert bootstrap_interval([0.7] * 5) == pytest.approx((0.7, 0.7))
