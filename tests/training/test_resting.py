"""Text encoders leave the device once prompts are encoded: here for the meta device, where nothing can read them."""

from functools import partial

import pytest
import torch

from advanchor import methods
from advanchor.methods import adv_anchor, fixed_anchor, guarded_anchor
from advanchor.models.base import Base
from advanchor.training.context import Context

QUICK = {"steps": 2, "batch_size": 2, "num_latents": 2, "latent_steps": 2}


def away(context: Context, monkeypatch: pytest.MonkeyPatch) -> Base:
    """The context's base, whose encoders rest where there is no weight."""
    monkeypatch.setattr(context.base, "rest", partial(context.base.rest, "meta"))
    return context.base


@pytest.mark.parametrize("strategy", ["alternating", "sequential", "cyclical"])
def test_search_and_training_need_no_encoder(strategy: str, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    base = away(context, monkeypatch)
    settings = adv_anchor.Settings.model_validate(QUICK | {"strategy": strategy, "anchor_steps": 2})
    (erasure,) = methods.erase(context, settings)
    assert {parameter.device.type for parameter in base.encoders[0].module.parameters()} == {"meta"}
    assert base.device.type == "cpu" and any(float(tensor.abs().max()) > 0 for tensor in erasure.delta.values())


@pytest.mark.parametrize("module", [fixed_anchor, guarded_anchor])
def test_other_methods_neither(module: object, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    base = away(context, monkeypatch)
    methods.erase(context, module.Settings.model_validate(QUICK))  # type: ignore[attr-defined]
    assert base.resting


def test_whoever_needs_them_brings_them_back(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A perturbation of token embeddings encodes in every step: weights that are gone cannot come back."""
    away(context, monkeypatch)
    settings = adv_anchor.Settings.model_validate(QUICK | {"perturb_space": "token_embeds", "anchor_steps": 1})
    with pytest.raises(NotImplementedError, match="meta tensor"):
        methods.erase(context, settings)


def test_they_stay_where_the_device_is_the_same(base: Base) -> None:
    base.rest("cpu")
    assert not base.resting
    with torch.no_grad():
        base.encode(["a star"])
