"""Anchors whose pooled vector is learned as well, on the tiny pipelines that have one."""

from functools import cache
from typing import Any

import pytest
import tiny
import torch

from advanchor import methods, models
from advanchor.artifacts import erasure_files, views
from advanchor.concepts import Concept
from advanchor.methods import adv_anchor, guarded_anchor
from advanchor.methods.adv_anchor import Anchor
from advanchor.methods.anchors import finished_anchor
from advanchor.models.base import Base
from advanchor.training.context import Context, Erasure
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

QUICK: dict[str, Any] = {
    "steps": 2, "anchor_steps": 2, "batch_size": 1, "num_latents": 1, "latent_steps": 1, "lr": 1e-3, "anchor_lr": 1e-2,
}  # fmt: skip
LEARN = adv_anchor.Settings(**QUICK, trained_weights="readers", perturb_pooled="learn", loss="adv2")
DOG, TREE = (
    Concept(name=name, kind="object", templates=("{}", "a red {}"), neutral=("an object", "a red object"))
    for name in ("dog", "old tree")
)
pooled_bases = pytest.mark.parametrize("name", ["sdxl", "sd35", "flux_dev"])


@cache
def base_of(name: str) -> Base:
    torch.manual_seed(0)
    return models.of_pipeline(tiny.BUILD[name](), name=name, digest=name)


def erased(base: Base, settings: adv_anchor.Settings, *concepts: Concept) -> list[Erasure]:
    delta = Delta(base.backbone, settings.trained_weights, len(concepts))
    try:
        seeds = [len(concept.name) for concept in concepts]
        engine = TorchEngine(base.backbone, delta.named_parameters())
        return methods.erase(Context(base, engine, delta, concepts, seeds), settings)
    finally:
        delta.detach()


@pooled_bases
def test_each_concept_of_a_pack_learns_its_own_pooled_vector(name: str) -> None:
    """From the loss of its own predictions alone: it is what it is without companions. It starts at next to nothing."""
    base = base_of(name)
    together = erased(base, LEARN, DOG, TREE)
    (alone,) = erased(base, LEARN, TREE)
    first, second = (own.pooled_adv for own in together)
    width = base.encode(["a dog"]).added["pooled"].shape[-1]
    assert first is not None and second is not None and alone.pooled_adv is not None
    assert first.shape == second.shape == (width,) and min(first.abs().max(), second.abs().max()) > 1e-4
    torch.testing.assert_close(second, alone.pooled_adv, rtol=1e-2, atol=1e-3 * float(second.abs().max()))
    assert (first - second).norm() > 0.1 * second.norm()
    assert together[0].facts["pooled_adv_relative_norm"] > 0


@pooled_bases
def test_a_finished_anchor_has_its_pooled_vector(name: str) -> None:
    base = base_of(name)
    delta = Delta(base.backbone, "readers")
    try:
        context = Context(base, TorchEngine(base.backbone, delta.named_parameters()), delta, [DOG], [0])
        anchor = Anchor(context, LEARN.model_copy(update={"anchor_init": 1.0}))
        erasure = Erasure({}, "readers", anchor.e_adv[0].detach(), anchor.pooled_adv[0].detach())
        found = views(erasure_files({}, erasure.anchor, {}, {})["anchor.safetensors"], "it")
        _, e_a = finished_anchor(base, DOG, LEARN, found["e_adv"], found["pooled_adv"])
        with torch.no_grad():
            expected = anchor.conditioning(torch.tensor([[0, 1]])).rows(0)
        torch.testing.assert_close(e_a.added["pooled"], expected.added["pooled"])
        assert not torch.allclose(e_a.added["pooled"], context.e_c.added["pooled"], atol=0.1)
    finally:
        delta.detach()


def test_pooled_vectors_that_are_kept_or_neutral_are_not_learned() -> None:
    for choice in ("keep", "neutral"):
        (erasure,) = erased(base_of("sdxl"), LEARN.model_copy(update={"perturb_pooled": choice}), DOG)
        assert erasure.pooled_adv is None and erasure.anchor["pooled_adv"] is None


def test_a_base_without_a_pooled_vector_has_none_to_learn() -> None:
    with pytest.raises(ValueError, match=r"perturb_pooled: learn asks for a base with a pooled vector"):
        methods.for_base(LEARN, ["cross_attention_kv", "cross_attention", "readers"])


def test_what_is_trained_by_default_is_all_that_reads_the_prompt() -> None:
    """SDXL's pooled vector says the concept to every block, whatever keys and values say."""
    open_, named = guarded_anchor.Settings(), guarded_anchor.Settings(trained_weights="cross_attention_kv")
    sdxl, sd3 = (base_of(name).trained_weights for name in ("sdxl", "sd35"))
    sd15 = ["cross_attention_kv", "cross_attention", "readers"]
    assert [methods.for_base(open_, own).trained_weights for own in (sdxl, sd3, sd15)] == [
        "readers", "readers", "cross_attention_kv"
    ]  # fmt: skip
    assert methods.for_base(named, sdxl).trained_weights == "cross_attention_kv"
