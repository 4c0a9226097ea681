"""The closed forms of a fusion, against arithmetic by hand and brute force."""

import pytest
import torch
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.fusion.statistics import BLOCK, accumulate, anchor_statistics, statistics
from advanchor.fusion.ways.anchor_edit import anchor_edit
from advanchor.fusion.ways.closed_form import closed_form
from advanchor.fusion.ways.task_arithmetic import task_arithmetic
from advanchor.methods.adv_anchor import Anchor, Settings
from advanchor.methods.anchors import finished_anchor
from advanchor.models.base import Base
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine
from advanchor.training.projection import constrained_inverse, gram, null_space, token_embeds

D = 12
NOTHING = torch.zeros(D, D, dtype=torch.float64)
FIRST = torch.randn(D, 1, generator=torch.Generator().manual_seed(99))


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompts(seed: int, count: int = 2, length: int = 4) -> Tensor:
    """Embeddings (count, length, D) that all begin with FIRST, as a text encoder's do."""
    embeds = randn(count, length, D, seed=seed)
    embeds[:, 0] = FIRST[:, 0]
    return embeds


def erasure(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """A delta of two projections of different widths that leaves the first position alone, and its prompts."""
    away = null_space(FIRST).float()
    delta = {name: randn(width, D - 1, seed=seed + i) @ away.T for i, (name, width) in enumerate((("k", 5), ("v", 7)))}
    return delta, prompts(seed + 10)


def summed(*erasures: tuple[dict[str, Tensor], Tensor]) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}
    for one in erasures:
        accumulate(totals, statistics(*one))
    return totals


def test_the_gram_matrix_is_the_mean_outer_product_without_the_first_position() -> None:
    """Two prompts of three positions: e1, 2 e1, e2 and e1, 0, e2, the first of each left out; n = 4."""
    e1, e2 = torch.eye(2)
    embeds = torch.stack([torch.stack([e1, 2 * e1, e2]), torch.stack([e1, 0 * e1, e2])])
    expected = torch.tensor([[4 / 4, 0], [0, 2 / 4]], dtype=torch.float64)
    torch.testing.assert_close(gram(embeds), expected)


def test_statistics_by_hand() -> None:
    """E E^T = diag(1, 1/2) as above; dW = [1 2] gives dW E E^T = [1 1]."""
    e1, e2 = torch.eye(2)
    embeds = torch.stack([torch.stack([e1, 2 * e1, e2]), torch.stack([e1, 0 * e1, e2])])
    found = statistics({"k": torch.tensor([[1.0, 2.0]])}, embeds)
    assert torch.equal(found["k"], torch.tensor([[1.0, 1.0]])) and found["gram"].dtype == torch.float32


def test_one_concept_alone_is_left_as_it_was_on_its_tokens() -> None:
    delta, embeds = erasure(0)
    fused = closed_form(summed((delta, embeds)), NOTHING, FIRST, ridge=1e-7)
    e = token_embeds(embeds).float()
    for name in delta:
        torch.testing.assert_close(fused[name] @ e, delta[name] @ e, atol=1e-3, rtol=1e-3)


def test_two_orthogonal_concepts_keep_their_own_deltas() -> None:
    """Concept A lives in the first half of the coordinates, B in the second: neither feels the other."""
    a, b = torch.zeros(1, 5, D), torch.zeros(1, 5, D)
    a[0, 1:, :4], b[0, 1:, 4:8] = torch.eye(4), torch.eye(4)
    dw_a, dw_b = randn(3, D, seed=1), randn(3, D, seed=2)
    totals = summed(({"k": dw_a}, a), ({"k": dw_b}, b))
    fused = closed_form(totals, NOTHING, torch.eye(D)[:, 11:], ridge=1e-7)["k"]
    torch.testing.assert_close(fused[:, :4], dw_a[:, :4], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fused[:, 4:8], dw_b[:, 4:8], atol=1e-4, rtol=1e-4)
    assert fused[:, 8:].abs().max() < 1e-4


def test_the_closed_form_is_the_least_squares_answer() -> None:
    """Against torch.linalg.lstsq on the stacked equations, in the coordinates that the first position leaves free."""
    erasures, kept = [erasure(0), erasure(20), erasure(40)], prompts(70, count=5)
    ridge, gamma = 0.05, 2.0
    system = sum(gram(e) for _, e in erasures) + gamma * gram(kept)
    penalty = (ridge * system.trace() / D).sqrt()
    columns = [*(token_embeds(e) for _, e in erasures), gamma**0.5 * token_embeds(kept), penalty * torch.eye(D)]
    fused = closed_form(summed(*erasures), gamma * gram(kept), FIRST, ridge)
    basis = null_space(FIRST)
    for name in ("k", "v"):
        wanted = [delta[name].double() @ token_embeds(e) for delta, e in erasures]
        wanted += [torch.zeros(wanted[0].shape[0], columns[-2].shape[1] + D)]
        inputs = basis.T @ torch.cat([c.double() for c in columns], 1)
        brute = torch.linalg.lstsq(inputs.T, torch.cat(wanted, 1).T.double()).solution.T @ basis.T
        torch.testing.assert_close(fused[name].double(), brute, atol=1e-5, rtol=1e-4)


def test_what_is_kept_exactly_is_kept_exactly() -> None:
    """Deltas that do move the first position lose that part, and another that is kept beside it."""
    kept = torch.cat([FIRST, randn(D, 2, seed=5)], 1)
    totals = summed(({"k": randn(5, D, seed=6)}, prompts(7)), ({"k": randn(5, D, seed=8)}, prompts(9)))
    assert (closed_form(totals, NOTHING, FIRST, 1e-3)["k"] @ FIRST).abs().max() < 1e-5
    assert (closed_form(totals, NOTHING, kept, 1e-3)["k"] @ kept).abs().max() < 1e-5
    assert (closed_form(totals, NOTHING, torch.zeros(D, 1), 1e-3)["k"] @ FIRST).abs().max() > 1e-2


def test_repeated_embeddings_do_not_use_up_the_null_space() -> None:
    twice = torch.cat([FIRST, 3 * FIRST, torch.zeros(D, 1)], 1)
    assert null_space(twice).shape == (D, D - 1)
    torch.testing.assert_close(constrained_inverse(torch.eye(D), twice), constrained_inverse(torch.eye(D), FIRST))


def test_retained_prompts_hold_the_delta_back_by_their_weight() -> None:
    one, kept = erasure(0), prompts(50)
    moved = [
        (closed_form(summed(one), weight * gram(kept), FIRST, 1e-3)["k"] @ token_embeds(kept).float()).norm()
        for weight in (0, 1, 100)
    ]
    assert moved[0] > 3 * moved[1] > 30 * moved[2]


def test_taking_a_concept_out_leaves_what_would_be_without_it() -> None:
    a, b, c = erasure(0), erasure(20), erasure(40)
    totals = summed(a, b, c)
    accumulate(totals, statistics(*b), sign=-1)
    expected = closed_form(summed(a, c), gram(prompts(50)), FIRST, 1e-3)
    found = closed_form(totals, gram(prompts(50)), FIRST, 1e-3)
    for name in ("k", "v"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-6)


def test_totals_are_float64_and_summed_one_by_one() -> None:
    """A thousand times 1 + 2^-20 is exact in float64 and not in float32."""
    totals: dict[str, Tensor] = {}
    for _ in range(1000):
        accumulate(totals, {"gram": torch.tensor([1 + 2.0**-20])})
    assert totals["gram"].dtype == torch.float64 and totals["gram"].item() == 1000 * (1 + 2.0**-20)


def test_contributions_of_different_kinds_do_not_add_up() -> None:
    totals = summed(erasure(0))
    with pytest.raises(ValueError, match="'k'"):
        accumulate(totals, anchor_statistics(prompts(1), prompts(2)))


def test_an_anchor_edit_says_for_the_concept_what_the_base_says_for_the_anchor() -> None:
    embeds, anchors = prompts(1), prompts(2)
    base = {"k": randn(5, D, seed=3)}
    totals: dict[str, Tensor] = {}
    accumulate(totals, anchor_statistics(embeds, anchors))
    dw = anchor_edit(totals, NOTHING, FIRST, 1e-9, base)["k"]
    # The part of an embedding along FIRST cannot be edited: six tokens in eleven free dimensions, so all the rest can.
    e, e_a = token_embeds(embeds).float(), token_embeds(anchors).float()
    torch.testing.assert_close((base["k"] + dw) @ e, base["k"] @ e_a, atol=1e-3, rtol=1e-3)


def test_an_anchor_edit_is_uces_formula() -> None:
    """W = (l W0 + sum W0 E_a E^T + W0 R) (l I + sum E E^T + R)^-1, computed term by term; nothing kept exactly."""
    pairs = [(prompts(i), prompts(i + 5)) for i in range(3)]
    w0, retained, ridge = randn(5, D, seed=30), gram(prompts(60)), 0.1
    totals: dict[str, Tensor] = {}
    for pair in pairs:
        accumulate(totals, anchor_statistics(*pair))
    system = sum(gram(e) for e, _ in pairs) + retained
    ridge_matrix = ridge * system.trace() / D * torch.eye(D)
    left = w0.double() @ (ridge_matrix + sum(token_embeds(e_a) @ token_embeds(e).T for e, e_a in pairs) + retained)
    expected = left @ torch.linalg.inv(system + ridge_matrix) - w0
    found = anchor_edit(totals, retained, torch.zeros(D, 1), ridge, {"k": w0})["k"]
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-5, rtol=1e-4)


def test_task_arithmetic_adds_and_scales() -> None:
    totals: dict[str, Tensor] = {}
    for value in (1.0, 2.0):
        accumulate(totals, {"k": torch.full((2, 2), value)})
    assert torch.equal(task_arithmetic(totals, 0.5)["k"], torch.full((2, 2), 1.5))


@pytest.mark.parametrize("tokens", ["concept", "concept_and_later"])
@pytest.mark.parametrize("space", ["prompt_embeds", "token_embeds"])
def test_an_anchor_file_is_enough_to_make_the_anchor_again(
    base: Base, concept: Concept, tokens: str, space: str
) -> None:
    settings = Settings(perturb_tokens=tokens, perturb_space=space, anchor_init=0.5)  # type: ignore[arg-type]
    delta = Delta(base.backbone, "cross_attention_kv")
    context = Context(base, TorchEngine(base.backbone, delta.named_parameters()), delta, [concept], [0])
    anchor = Anchor(context, settings)
    e_c, e_a = finished_anchor(base, concept, settings, anchor.e_adv[0].detach())
    assert torch.equal(e_c.prompt_embeds, context.e_c.prompt_embeds)
    with torch.no_grad():
        expected = anchor.conditioning(torch.arange(len(concept.templates))[None]).prompt_embeds[0]
    torch.testing.assert_close(e_a.prompt_embeds, expected)
    assert not torch.equal(e_a.prompt_embeds, e_c.prompt_embeds)


def test_tensors_larger_than_a_block_are_summed_whole() -> None:
    one, other = torch.randn(BLOCK // 3, 7), torch.randn(7, BLOCK // 3).T  # the second is not contiguous
    totals: dict[str, torch.Tensor] = {}
    accumulate(totals, {"k": one})
    accumulate(totals, {"k": other}, sign=-0.5)
    assert torch.allclose(totals["k"], one.double() - 0.5 * other.double(), rtol=0, atol=1e-12)
