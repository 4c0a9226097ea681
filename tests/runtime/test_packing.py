"""Concepts that share a backbone stay strangers: each gets the delta and the anchor that it gets alone."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from advanchor import methods, models
from advanchor.batch.plan import Task
from advanchor.concepts import Concept
from advanchor.methods import MethodSettings, adv_anchor, esd, fixed_anchor, hardened_anchor
from advanchor.methods.adv_anchor import Anchor
from advanchor.models.base import Base
from advanchor.runtime.packing import activation_bytes, bytes_per_concept, cheapest, choose_pack_size, pack_key
from advanchor.training.context import Context, Erasure
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine
from advanchor.training.finite import NotFiniteError

TOLERANCE = 1e-3  # relative Frobenius difference, DESIGN's promise
QUICK: dict[str, Any] = {"steps": 3, "lr": 1e-3, "batch_size": 1, "num_latents": 3, "latent_steps": 2}
LOSSES, STRATEGIES = ("adv1", "adv2"), ("alternating", "sequential", "cyclical")


def adv(**settings: Any) -> adv_anchor.Settings:
    return adv_anchor.Settings(**QUICK | {"anchor_steps": 2, "anchor_lr": 5e-2} | settings)


def concept(name: str, *pairs: tuple[str, str], **fields: Any) -> Concept:
    templates, neutral = zip(*pairs, strict=True)
    return Concept(name=name, kind="object", templates=templates, neutral=neutral, **fields)


PERSON = concept(
    "mira morwin", ("{}", "a person"), ("a portrait of {}", "a portrait of a person"), similar="nadia caswin"
)
STAR = concept("star", ("a {}", "a shape"), ("a red {}", "a red shape"), ("a blue {}", "a blue shape"), similar="cross")
DOTTED = concept("blue dotted heart", ("a {}", "a shape"), similar="ring")
SAME = concept("red star", ("a {}", "a red star"))  # its neutral prompt is its own: adv2 is 0 from the start
PACK, PAIR = (PERSON, STAR, DOTTED), (PERSON, DOTTED)
SCHEDULES: dict[str, MethodSettings] = {
    f"{loss} {strategy}": adv(loss=loss, strategy=strategy) for loss in LOSSES for strategy in STRATEGIES
}
VARIANTS: dict[str, MethodSettings] = {
    # Where a gradient is nearly zero rounding decides the sign of one of Adam's first steps; more steps even that out.
    "redraw": adv(redraw=True, strategy="sequential", steps=6),
    "before the text encoder": adv(perturb_space="token_embeds", anchor_lr=1e-2),
    "later tokens": adv(perturb_tokens="concept_and_later"),
    "reset optimizer": adv(reset_anchor_optimizer=True),
    "all of cross-attention": adv(trained_weights="cross_attention"),
    "bare concept": adv(latent_prompts="concept"),
    "no preserve term": adv(preserve_weight=0),
    "superclass": fixed_anchor.Settings(**QUICK),
    "empty anchor": fixed_anchor.Settings(**QUICK, anchor="empty"),
    "another concept as anchor": fixed_anchor.Settings(**QUICK, anchor="concept", anchor_concept="circle"),
    "what each is similar to": fixed_anchor.Settings(**QUICK, anchor="concept"),
    "soft prompts": hardened_anchor.Settings(
        **QUICK, anchor_steps=2, anchor_lr=1e-2, retain_prompts=20, rounds=2, round_steps=2, attack_steps=2
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def gallery() -> Base:
    """The pocket gallery: weights that listen to prompts, so that rounding does not drown what is compared."""
    return models.load("pocket")


def packed(
    base: Base, concepts: Sequence[Concept], settings: MethodSettings, slots: int
) -> tuple[list[Erasure], Context]:
    """Each concept has a seed of its own, which does not depend on its place."""
    delta = Delta(base.backbone, settings.trained_weights, slots)
    try:
        seeds = [100 + len(concept.name) for concept in concepts]
        context = Context(base, TorchEngine(base.backbone, delta.named_parameters()), delta, concepts, seeds)
        return methods.erase(context, settings), context
    finally:
        delta.detach()


ALONE: dict[str, Erasure] = {}  # of the gallery, once for equal concepts and settings


def alone(base: Base, concept: Concept, settings: MethodSettings) -> Erasure:
    key = concept.model_dump_json() + settings.model_dump_json()
    if key not in ALONE:
        [ALONE[key]] = packed(base, [concept], settings, slots=1)[0]
    return ALONE[key]


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """|| a - b || / || b ||, Frobenius, over all tensors together."""
    assert a.keys() == b.keys() and all(a[name].shape == b[name].shape for name in b)
    total = sum(float(b[name].square().sum()) for name in b)
    assert total > 0
    return (sum(float((a[name] - b[name]).square().sum()) for name in b) / total) ** 0.5


def check(packed: Erasure, alone: Erasure) -> None:
    assert difference(packed.delta, alone.delta) < TOLERANCE
    assert packed.facts == pytest.approx(alone.facts, rel=1e-2)
    assert (packed.e_adv is None) == (alone.e_adv is None)
    if packed.e_adv is not None and alone.e_adv is not None:
        assert difference({"e_adv": packed.e_adv}, {"e_adv": alone.e_adv}) < TOLERANCE


def check_pack(base: Base, pack: Sequence[Concept], settings: MethodSettings) -> None:
    """Names of different numbers of tokens, different numbers of templates, and one slot that stays empty."""
    erasures, context = packed(base, pack, settings, slots=len(pack) + 1)
    for concept, erasure in zip(pack, erasures, strict=True):
        check(erasure, alone(base, concept, settings))
    assert difference(erasures[0].delta, erasures[1].delta) > 0.1
    assert not any(tensor[len(pack)].any() for tensor in context.engine.export().values())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_pack_gives_what_each_concept_gets_alone(gallery: Base, schedule: str) -> None:
    check_pack(gallery, PACK, SCHEDULES[schedule])


@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_the_settings_a_pack_gives_what_each_gets_alone(gallery: Base, variant: str) -> None:
    check_pack(gallery, PAIR, VARIANTS[variant])


def test_companions_and_slots_change_nothing(gallery: Base) -> None:
    first = packed(gallery, (PERSON, STAR), adv(), slots=2)[0][0]
    second = packed(gallery, (DOTTED, SAME, PERSON, STAR), adv(), slots=8)[0][2]
    check(first, second)


def test_eight_give_what_one_gives(gallery: Base) -> None:
    names = ("star", "heart", "circle", "ring", "cross", "solid star", "red heart", "mira morwin")
    eight = [concept(name, ("a {}", "a shape"), ("a blue {}", "a blue shape")) for name in names]
    erasures, _ = packed(gallery, eight, adv(), slots=8)
    for i in (0, 4, 7):
        check(erasures[i], alone(gallery, eight[i], adv()))


@pytest.mark.parametrize("loss", LOSSES)
def test_attributes_of_each_concept_are_its_own(gallery: Base, loss: str) -> None:
    pack = [
        PERSON.model_copy(update={"attributes": {"portrait": 0.5, "person": 0.25}}),
        STAR.model_copy(update={"attributes": {"solid star": 1.5, "red star": 0.75}}),
    ]
    erasures, _ = packed(gallery, pack, adv(loss=loss), slots=2)
    for concept, erasure in zip(pack, erasures, strict=True):
        check(erasure, alone(gallery, concept, adv(loss=loss)))


def test_a_concept_whose_search_has_ended_costs_its_companions_nothing(gallery: Base) -> None:
    """SAME stops at once, and from the second step on the teacher predicts for the other two only."""
    settings, rows = adv(steps=1, preserve_weight=0), []
    handle = gallery.backbone.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    erasures, context = packed(gallery, (PERSON, SAME, STAR), settings, slots=3)
    handle.remove()
    sampling = 3 * QUICK["latent_steps"]
    assert rows[sampling:] == [6, 3, 2, 3, 3]  # constants of two prompts, two anchor steps, target, student
    assert erasures[1].e_adv is not None and torch.equal(erasures[1].e_adv, Anchor(context, settings).e_adv[1])
    check(erasures[0], alone(gallery, PERSON, settings))
    check(erasures[2], alone(gallery, STAR, settings))


def test_a_concept_that_stops_early_keeps_its_moments(gallery: Base) -> None:
    """One step, a step missed, another step: as if it had been alone in the first and the last."""
    delta = Delta(gallery.backbone, "cross_attention_kv", slots=2)
    context = Context(gallery, TorchEngine(gallery.backbone, delta.named_parameters()), delta, (PERSON, STAR), (0, 1))
    batch = context.batches(adv(), context.latents(adv()))[0]
    anchor, lonely = Anchor(context, adv()), Anchor(context, adv())
    assert anchor.step(batch) == [0, 1]
    anchor.weights = {"concept": torch.tensor([1.0, -1.0])}  # turns the sign of STAR's loss
    assert anchor.step(batch) == [0]
    anchor.weights = {"concept": torch.ones(2)}
    assert anchor.step(batch) == [0, 1]
    for _ in range(2):
        assert lonely.step(batch.of([1])) == [1]
    delta.detach()
    assert difference({"e_adv": anchor.e_adv[1].detach()}, {"e_adv": lonely.e_adv[1].detach()}) < TOLERANCE


def test_a_companion_that_breaks_down_ends_the_pack_and_leaves_nothing_behind(gallery: Base) -> None:
    """Not-a-number in one concept's embeddings ends the pack's attempt; the base, the delta and the engine are free."""
    delta = Delta(gallery.backbone, "cross_attention_kv", slots=2)
    engine = TorchEngine(gallery.backbone, delta.named_parameters())
    try:
        context = Context(gallery, engine, delta, (STAR, PERSON), (104, 0))
        context.e_c.prompt_embeds[context.spans[1]] = torch.nan
        with pytest.raises(NotFiniteError, match="student step 1 of 3: the loss is nan"):
            methods.erase(context, adv())
        [star] = methods.erase(Context(gallery, engine, delta, (STAR,), (104,)), adv())
    finally:
        delta.detach()
    check(star, alone(gallery, STAR, adv()))


def test_what_does_not_pack_is_refused(gallery: Base) -> None:
    one_at_a_time = esd.Settings(**QUICK, partial_steps=3)
    with pytest.raises(ValueError, match="esd erases one concept at a time, not 2"):
        packed(gallery, (PERSON, STAR), one_at_a_time, slots=2)
    with pytest.raises(ValueError, match="2 concepts do not fit into a delta of 1 slots"):
        packed(gallery, (PERSON, STAR), adv(), slots=1)
    with_attribute = STAR.model_copy(update={"attributes": {"heart": 1.0}})
    with pytest.raises(ValueError, match="concepts with 0 and 1 attributes cannot share a pack"):
        packed(gallery, (PERSON, with_attribute), adv(), slots=2)


def test_a_delta_is_loaded_into_the_slot_that_is_asked_for(gallery: Base) -> None:
    delta = Delta(gallery.backbone, "cross_attention_kv", slots=3)
    engine = TorchEngine(gallery.backbone, delta.named_parameters())
    loaded = {name: torch.full(parameter.shape[1:], 0.5) for name, parameter in engine.parameters.items()}
    engine.load(loaded, slot=1)
    delta.detach()
    for name, tensor in engine.export().items():
        assert torch.equal(tensor[1], loaded[name]) and not tensor[[0, 2]].any()


# --- which tasks, and how many


def task(concept: Concept, settings: Any, letter: str = "a") -> Task:
    return Task(
        id=letter * 12,
        concept=concept,
        method=settings,
        base="pocket",
        base_digest="",
        profile="",
        draws="",
        precision="fp32",
        batch_seed=0,
    )


def test_tasks_with_equal_settings_and_as_many_attributes_share_a_pack() -> None:
    with_attribute = STAR.model_copy(update={"attributes": {"heart": 1.0}})
    assert pack_key(task(PERSON, adv())) == pack_key(task(STAR, adv(), "b"))
    assert pack_key(task(STAR, adv())) != pack_key(task(STAR, adv(lr=2e-3)))
    assert pack_key(task(STAR, adv())) != pack_key(task(with_attribute, adv()))
    one_at_a_time = esd.Settings(**QUICK, partial_steps=3)
    assert pack_key(task(STAR, one_at_a_time)) != pack_key(task(PERSON, one_at_a_time, "b"))


def test_the_smallest_pack_that_is_nearly_the_cheapest_is_chosen() -> None:
    assert cheapest({1: 8.0, 2: 5.0, 4: 3.1, 8: 3.0, 16: 3.2}) == 4
    assert cheapest({1: 3.0}) == 1


def test_memory_and_the_number_of_tasks_bound_the_pack(gallery: Base) -> None:
    each = bytes_per_concept(gallery, adv())
    assert each > 24 * 2 * 256 * 64  # one layer's to_k and to_v alone
    assert choose_pack_size(gallery, adv(), num_tasks=100, free_bytes=1.5 * each) == 1
    assert choose_pack_size(gallery, adv(), num_tasks=1, free_bytes=1e12) == 1
    assert choose_pack_size(gallery, esd.Settings(**QUICK), num_tasks=100, free_bytes=1e12) == 1
    assert 1 <= choose_pack_size(gallery, adv(), num_tasks=4, free_bytes=1e12) <= 4
    assert gallery.backbone.get_parameter("conv_in.weight").grad is None


def test_activations_grow_with_the_latents(gallery: Base) -> None:
    small = activation_bytes(gallery)
    try:
        gallery.latent_shape = (4, 16, 16)
        assert 3 < activation_bytes(gallery) / small < 16  # four times the positions; attention maps may grow by 16
    finally:
        gallery.latent_shape = (4, 8, 8)
