"""What it takes to represent an anchor: by hand, and on encoders that tell their tokens apart or do not."""

import pytest
import tiny
import torch

from advanchor import models
from advanchor.models.text import fill
from advanchor.training.representation import Price, dear, price, typical_price


def test_the_price_by_hand() -> None:
    """E = diag(2, 1), S = (2, 2) on the diagonal: without a ridge M = diag(1, 2); with lambda 1 of mean 2.5,

    M = diag(4, 2) / diag(5, 2) = diag(0.8, 1), and E M^T - S = diag(1.6 - 2, 1 - 2).
    """
    e, s = torch.diag(torch.tensor([2.0, 1.0])), 2 * torch.eye(2)
    free, held = price(e, s, ridge=1e-12), price(e, s, ridge=1 / 2.5)
    assert free.norm == pytest.approx(5**0.5) and free.unreached == pytest.approx(0, abs=1e-6)
    assert held.norm == pytest.approx((0.8**2 + 1) ** 0.5)
    assert held.unreached == pytest.approx((0.4**2 + 1) ** 0.5 / 8**0.5)
    assert price(e, torch.zeros(2, 2), 1.0) == Price(0.0, 0.0)


def test_tokens_that_are_nearly_equal_cannot_be_told_apart_for_nothing() -> None:
    """Two tokens 0.001 apart, one of which is to move by 1: without a ridge M is about 1,000 / sqrt 1."""
    e, s = torch.tensor([[1.0, 0.0], [1.0, 1e-3]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert price(e, s, 1e-12).norm == pytest.approx(1000, rel=1e-2)
    assert price(e, s, 1e-3).is_dear and price(e, s, 1e-3).norm < 10


def test_t5_is_dear_where_clip_is_not() -> None:
    prompts = [fill(template, "Van Gogh") for template in ("{}", "a red star in the style of {}", "{} near a tree")]
    found = {}
    for name in ("sdxl", "sd35", "flux_dev"):
        torch.manual_seed(0)
        found[name] = typical_price(
            models.of_pipeline(tiny.BUILD[name](), name=name, digest=name), prompts, 1e-5, later=False
        )
    assert not found["sdxl"].is_dear and found["sdxl"].norm < 30
    assert all(own.is_dear and own.norm > 100 for own in (found["sd35"], found["flux_dev"]))
    assert "'Van Gogh': an anchor is dear" in dear("Van Gogh", found["flux_dev"])
