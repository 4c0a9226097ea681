"""SPEED against its formulas: the closed form term by term, and each choice of what is retained by hand."""

import pytest
import torch
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.methods.speed import (
    Settings,
    augmented,
    centroids,
    concept_and_anchor,
    edit,
    erasing_alone,
    held_directions,
    influenced,
    invariants,
    retained_embeds,
)
from advanchor.models.base import Base

STAR = Concept(name="star", kind="object", templates=("a red {}", "a {}"), neutral=("a red shape", "a shape"))
PLAIN = {"filter_scale": 0.0, "augment": 0}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(base: Base, prompt: str, position: int) -> Tensor:
    with torch.no_grad():
        return base.encode([prompt]).prompt_embeds[0, position].double()


def test_the_concept_and_its_anchors(base: Base) -> None:
    """Each of n embeddings is weighted 1/n in C C^T; "a red star" and "a red shape" end at 3, the empty prompt at 1."""
    c_1, c_a = concept_and_anchor(base, STAR, Settings())
    torch.testing.assert_close(c_1, torch.stack([at(base, "a red star", 3), at(base, "a star", 2)], 1) / 2**0.5)
    torch.testing.assert_close(c_a, torch.stack([at(base, "a red shape", 3), at(base, "a shape", 2)], 1) / 2**0.5)
    _, empty = concept_and_anchor(base, STAR, Settings(anchor="empty"))
    torch.testing.assert_close(empty, torch.stack([at(base, "", 1)] * 2, 1) / 2**0.5)
    _, other = concept_and_anchor(base, STAR, Settings(anchor="concept", anchor_concept="circle"))
    torch.testing.assert_close(other[:, 1], at(base, "a circle", 2) / 2**0.5)


def test_the_edit_is_the_papers_closed_form() -> None:
    """W0 (C_* - C_1) C_1^T P M (I - C_2 (C_2^T P M C_2)^-1 C_2^T P M) with M = (C_1 C_1^T P + l I)^-1, P = I - E E^T.

    Of C_0's three directions, with eigenvalues 16, 4 and 0.01 and a mean of 20.01 / 8, 0.1 of the mean holds two.
    """
    w0, c_1, c_a, c_2 = drawn(5, 8), drawn(8, 3, seed=1), drawn(8, 3, seed=2), drawn(8, 2, seed=3)
    basis = torch.linalg.qr(drawn(8, 3, seed=4)).Q
    c_0 = basis * torch.tensor([4.0, 2.0, 0.1], dtype=torch.float64)
    found, rank = edit({"attn2.to_v.weight": w0}, c_1, c_a, c_0, c_2, Settings(ridge=0.5, **PLAIN), 0)
    assert rank == 8 - 2 - 2
    eye = torch.eye(8, dtype=torch.float64)
    p = eye - basis[:, :2] @ basis[:, :2].T
    ridge = 0.5 * (c_1 @ c_1.T).trace() / 8
    p_m = p @ torch.linalg.inv(c_1 @ c_1.T @ p + ridge * eye)
    q = eye - c_2 @ torch.linalg.inv(c_2.T @ p_m @ c_2) @ c_2.T @ p_m
    expected = w0 @ (c_a - c_1) @ c_1.T @ p_m @ q
    torch.testing.assert_close(found["attn2.to_v.weight"].double(), expected, atol=1e-6, rtol=1e-5)
    farther = Settings(ridge=0.5, scale=3, **PLAIN)
    found, _ = edit({"attn2.to_v.weight": w0}, c_1, c_a, c_0, c_2, farther, 0)
    torch.testing.assert_close(found["attn2.to_v.weight"].double(), 3 * expected, atol=1e-6, rtol=1e-5)


def test_what_is_held_does_not_move_and_the_concept_becomes_its_anchor(base: Base) -> None:
    """Retained prompts, begin of text and the (one) centroid of the empty prompt: all exactly; a small lambda."""
    weights = {k: v for k, v in base.backbone.named_parameters() if k.endswith("attn2.to_v.weight")}
    settings = Settings(ridge=1e-9, threshold=0, null_centroids=1, **PLAIN)
    c_1, c_a = concept_and_anchor(base, STAR, settings)
    c_0 = torch.cat(retained_embeds(base, ["a blue circle", "a striped shape"], "last")).T
    c_2 = invariants(base, settings)
    delta, rank = edit(weights, c_1, c_a, c_0, c_2, settings, 0)
    assert c_2.shape == (32, 2) and rank == 32 - 4
    torch.testing.assert_close(c_2[:, 0], at(base, "", 0))
    for name, dw in delta.items():
        w0 = weights[name].detach().double()
        assert (dw.double() @ torch.cat([c_0, c_2], 1)).abs().max() < 1e-4
        torch.testing.assert_close((w0 + dw.double()) @ c_1, w0 @ c_a, atol=1e-3, rtol=1e-3)


def test_values_alone_are_edited_unless_asked(base: Base) -> None:
    weights = {
        k: v for k, v in base.backbone.named_parameters() if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    c_1, c_a = concept_and_anchor(base, STAR, Settings())
    nothing = c_1[:, :0]
    values, _ = edit(weights, c_1, c_a, nothing, nothing, Settings(), 0)
    both, _ = edit(weights, c_1, c_a, nothing, nothing, Settings(projections="keys_and_values"), 0)
    assert {name for name, dw in values.items() if dw.any()} == {name for name in weights if "to_v" in name}
    assert all(dw.any() for dw in both.values())


def test_erasing_alone_has_no_regard_for_anything() -> None:
    """C_1 = (2, 0), C_* = (0, 1), lambda = ridge * 4 / 2 = 2: (-2, 1)^T (2, 0) diag(4 + 2, 2)^-1."""
    c_1, c_a = torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    torch.testing.assert_close(erasing_alone(c_1, c_a, 1.0), torch.tensor([[-4 / 6, 0.0], [2 / 6, 0.0]]))


def test_only_what_erasing_moves_more_than_the_mean_is_retained() -> None:
    """Shifts 1, 2 and 6 of the first coordinate, whatever the second: the mean is 3."""
    d_erase, c_0 = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0, 6.0], [9.0, 9.0, 9.0]])
    assert influenced(d_erase, c_0, 1.0).tolist() == [[6.0], [9.0]]
    assert influenced(d_erase, c_0, 0.5).tolist() == [[2.0, 6.0], [9.0, 9.0]]


def test_noise_goes_where_the_weight_varies_least() -> None:
    weight, c_0 = torch.diag(torch.tensor([3.0, 1.0, 2.0])).double(), torch.ones(3, 2, dtype=torch.float64)
    more = augmented(weight, c_0, Settings(augment=2), torch.Generator().manual_seed(0))
    assert more.shape == (3, 4)
    torch.testing.assert_close(more[[0, 2]], torch.ones(2, 4, dtype=torch.float64))
    assert (more[1] != 1).all() and len(more[1].unique()) == 4


@pytest.mark.parametrize(("threshold", "held"), [(0.0, 3), (0.1, 2), (2.0, 1)])
def test_directions_that_hardly_vary_may_change(threshold: float, held: int) -> None:
    """Eigenvalues 4, 1, 0.01 and 0: the mean is 5.01 / 4, its tenth above 0.01 and its double between 1 and 4."""
    c_0 = torch.diag(torch.tensor([2.0, 1.0, 0.1, 0.0])).double()
    basis = held_directions(c_0, threshold)
    assert basis.shape == (4, held)
    torch.testing.assert_close(basis @ basis.T, torch.diag((torch.arange(4) < held).double()))


def test_centroids_of_two_clusters() -> None:
    points = torch.tensor([[0.0], [1.0], [8.0], [9.0], [10.0]])
    assert centroids(points, 2).flatten().tolist() == [0.5, 9.0]
    assert centroids(points[:1], 3).tolist() == [[0.0]]
