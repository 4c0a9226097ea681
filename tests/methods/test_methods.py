"""Every method and every variant, in a few steps on the tiny pipeline."""

from typing import Any

import pytest
import torch
from quick import LOSSES, SETTINGS, STRATEGIES, VARIANTS, adv, rows
from torch import Tensor

from advanchor import api
from advanchor.concepts import Concept
from advanchor.methods import METHODS, MethodSettings, speed, uce
from advanchor.methods.adv_anchor import Anchor
from advanchor.methods.anchors import SearchSettings
from advanchor.models.base import Base
from advanchor.training import losses
from advanchor.training.context import Batch, Context, Erasure, TrainingSettings
from advanchor.training.engine import derived_seed


def run(base: Base, concept: Concept, settings: MethodSettings, seed: int = 0) -> Erasure:
    return api.erase(base.pipeline, concept, settings, seed=seed).erasure


@torch.no_grad()
def teacher_output(base: Base, concept: Concept) -> Tensor:
    noise = torch.randn(1, *base.latent_shape, generator=torch.Generator().manual_seed(3))
    return base.denoise(base.backbone, noise, torch.tensor([500]), base.encode([concept.name]))


def weights(base: Base) -> dict[str, Tensor]:
    parts = {"unet": base.backbone, "text_encoder": base.encoders[0].module, "vae": base.vae}
    return {f"{part}.{k}": v.clone() for part, module in parts.items() for k, v in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_method_has_a_row_of_quick_settings() -> None:
    assert SETTINGS.keys() == METHODS.keys() - {"continue_from"}, (
        "which goes on from a file: tests/runtime/test_repair.py"
    )
    assert all(settings.name == name for name, settings in SETTINGS.items())  # type: ignore[attr-defined]
    assert all(isinstance(METHODS[name].VERSION, int) for name in SETTINGS)


@pytest.mark.parametrize("variant", rows({name: row for name, row in (SETTINGS | VARIANTS).items() if name != "no_op"}))
def test_a_method_moves_the_delta_alone_and_repeats_itself(base: Base, concept: Concept, variant: str) -> None:
    settings = (SETTINGS | VARIANTS)[variant]
    before, said = weights(base), teacher_output(base, concept)
    erasure = run(base, concept, settings)
    assert equal(weights(base), before) and torch.equal(teacher_output(base, concept), said)
    shapes = {name: tensor.shape for name, tensor in expected_tensors(base, settings.trained_weights).items()}
    assert {name: tensor.shape for name, tensor in erasure.delta.items()} == shapes
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in erasure.delta.values())
    assert any(tensor.any() for tensor in erasure.delta.values())
    check_anchor(erasure, base, concept, settings)
    again, other = run(base, concept, settings), run(base, concept, settings, seed=1)
    assert equal(again.delta, erasure.delta) and again.facts == erasure.facts
    assert equal(other.delta, erasure.delta) == draws_nothing(settings)


def draws_nothing(settings: TrainingSettings) -> bool:
    return isinstance(settings, uce.Settings) or (isinstance(settings, speed.Settings) and not settings.augment)


def test_the_control_leaves_a_delta_of_zero(base: Base, concept: Concept) -> None:
    erasure = run(base, concept, SETTINGS["no_op"])
    assert erasure.delta.keys() == expected_tensors(base, "cross_attention_kv").keys() and erasure.e_adv is None
    assert not any(tensor.any() for tensor in erasure.delta.values())


def expected_tensors(base: Base, trained_weights: str) -> dict[str, Tensor]:
    endings = (".to_k.weight", ".to_v.weight") if trained_weights == "cross_attention_kv" else ("",)
    return {k: v for k, v in base.backbone.named_parameters() if "attn2" in k and k.endswith(endings)}


def check_anchor(erasure: Erasure, base: Base, concept: Concept, settings: TrainingSettings) -> None:
    """What learns one has one: a row per token, and one for all later tokens if asked; all moved away from 1e-7."""
    if not isinstance(settings, SearchSettings):
        assert erasure.e_adv is None
        return
    tokens = len(base.encoders[0].tokenizer(concept.name).input_ids) - 2
    assert erasure.e_adv is not None and erasure.e_adv.isfinite().all()
    assert erasure.e_adv.shape == (tokens + (settings.perturb_tokens == "concept_and_later"), 32)
    assert erasure.e_adv.norm(dim=1).min() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_the_strategies_differ(base: Base, concept: Concept, loss: str) -> None:
    """Alternating and sequential search the same steps on the same teacher; the student's targets differ."""
    alternating, sequential, cyclical = (run(base, concept, VARIANTS[f"{loss} {strategy}"]) for strategy in STRATEGIES)
    anchors = [erasure.e_adv for erasure in (alternating, sequential, cyclical)]
    assert all(anchor is not None for anchor in anchors)
    assert torch.equal(anchors[0], anchors[1]) and not torch.equal(anchors[1], anchors[2])  # type: ignore[arg-type]
    assert not equal(alternating.delta, sequential.delta)
    assert not equal(sequential.delta, cyclical.delta)


def test_the_losses_differ(base: Base, concept: Concept) -> None:
    adv1, adv2 = (run(base, concept, VARIANTS[f"{loss} alternating"]) for loss in LOSSES)
    assert adv1.e_adv is not None and adv2.e_adv is not None
    assert not torch.equal(adv1.e_adv, adv2.e_adv)
    assert not equal(adv1.delta, adv2.delta)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_anchor_steps_leave_e_adv_at_its_start(base: Base, concept: Concept, strategy: str) -> None:
    erasure = run(base, concept, adv(strategy=strategy, anchor_steps=0, anchor_init=0.5))
    tokens = len(base.encoders[0].tokenizer(concept.name).input_ids) - 2
    start = 0.5 * torch.randn(tokens, 32, generator=torch.Generator().manual_seed(derived_seed(0, "e_adv")))
    assert erasure.e_adv is not None and torch.equal(erasure.e_adv, start)


# --- the anchor


def drawn(context: Context, settings: TrainingSettings) -> Batch:
    return context.batches(settings, context.latents(settings))[0]


def test_the_anchor_is_the_concept_outside_its_tokens(context: Context) -> None:
    anchor = Anchor(context, adv(anchor_init=1))
    moved = (anchor.conditioning(torch.tensor([[1, 0]])).prompt_embeds[0] != context.e_c.prompt_embeds[[1, 0]]).any(
        dim=-1
    )
    assert torch.equal(moved, context.positions[[1, 0]] >= 0)


def test_the_anchor_may_also_move_what_follows_the_concept(context: Context) -> None:
    anchor = Anchor(context, adv(anchor_init=1, perturb_tokens="concept_and_later"))
    shift = anchor.conditioning(torch.tensor([[1]])).prompt_embeds[0, 0] - context.e_c.prompt_embeds[1]
    first = int((context.positions[1] >= 0).float().argmax())
    assert not shift[:first].any()
    later = shift[context.positions[1].argmax() + 1 :]
    assert later[0].any()
    torch.testing.assert_close(later, later[:1].expand_as(later), atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", ["adv1", "adv2"])
@pytest.mark.parametrize("space", ["prompt_embeds", "token_embeds"])
def test_a_search_lowers_the_anchor_loss(context: Context, loss: str, space: str) -> None:
    settings = adv(loss=loss, perturb_space=space, anchor_steps=10)
    batch, anchor = drawn(context, settings), Anchor(context, settings)
    before = float(anchor.loss(batch).detach())
    anchor.search(batch)
    assert before > 0
    assert float(anchor.loss(batch).detach()) < before


def test_a_loss_of_zero_ends_the_search(base: Base, context: Context) -> None:
    """The neutral prompt is the concept's own prompt: eps0(e_c) - eps0(e_n) = 0, and so is adv2."""
    concept = Concept(name="star", kind="object", templates=("a {}",), neutral=("a star",))
    settings = adv(anchor_init=0.5)
    same = Context(base, context.engine, context.delta, [concept], [0])
    batch, anchor = drawn(same, settings), Anchor(same, settings)
    start = anchor.e_adv[0].detach().clone()
    assert anchor.step(batch) == []
    anchor.search(batch)
    assert torch.equal(anchor.e_adv[0], start)


def test_a_negative_loss_ends_the_search(context: Context) -> None:
    """A negative weight turns the sign of the same product: what was above 0 is below it."""
    settings = adv()
    batch, anchor = drawn(context, settings), Anchor(context, settings)
    start = anchor.e_adv[0].detach().clone()
    anchor.weights = {"concept": -torch.ones(1)}
    assert anchor.loss(batch) < 0
    assert anchor.step(batch) == []
    assert torch.equal(anchor.e_adv[0], start)


@pytest.mark.parametrize("loss", ["adv1", "adv2"])
def test_attributes_add_their_weighted_products_and_halve_the_sum(base: Base, context: Context, loss: str) -> None:
    concept = context.concepts[0].model_copy(update={"attributes": {"red star": 0.5, "circle": 0.25}})
    settings = adv(loss=loss, anchor_init=1)
    batch = drawn(context, settings)
    anchor = Anchor(Context(base, context.engine, context.delta, [concept], [0]), settings)
    e_attributes = [base.encode([t.format(name) for t in concept.templates]) for name in concept.attributes]

    def eps(conditioning: Any) -> Tensor:
        return context.predict(batch, conditioning.rows(batch.templates))[0]

    eps_n, (eps_a,) = eps(context.e_n), context.predict(batch, anchor.conditioning(batch.templates))
    directions = [eps(context.e_c), *map(eps, e_attributes)]
    products = [losses.adv1(eps_a, d) if loss == "adv1" else losses.adv2(eps_a, d, eps_n) for d in directions]
    expected = (products[0] + 0.5 * products[1] + 0.25 * products[2]) / 2
    torch.testing.assert_close(anchor.loss(batch), expected, atol=1e-7, rtol=1e-4)


def test_attributes_change_the_erasure(base: Base, concept: Concept) -> None:
    with_attributes = concept.model_copy(update={"attributes": {"red star": 0.5}})
    plain, changed = run(base, concept, adv()), run(base, with_attributes, adv())
    assert changed.e_adv is not None and plain.e_adv is not None
    assert not torch.equal(changed.e_adv, plain.e_adv)
