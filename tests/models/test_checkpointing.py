"""Gradient checkpointing changes no gradient, though the backward pass comes after the delta has been switched off."""

from functools import cache

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError, checkpoint

from advanchor import models
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.sampling import initial_noise
from advanchor.training.checkpointing import checkpointed
from advanchor.training.delta import Delta

TRAINED = {"sdxl": "cross_attention", "sd35": "text_kv", "flux_dev": "text_kv"}  # a UNet and two MMDiTs


@cache
def told(name: str) -> tuple[Base, Conditioning]:
    torch.manual_seed(0)
    base = models.of_pipeline(tiny.BUILD[name](), name=name, digest=name)
    with torch.no_grad():
        return base, base.encode(["a red star", "a dog"])


def made(name: str) -> tuple[Base, Delta, Conditioning]:
    base, conditioning = told(name)
    delta = Delta(base.backbone, TRAINED[name], slots=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return base, delta, conditioning


def gradients(base: Base, delta: Delta, conditioning: Conditioning) -> list[Tensor]:
    """Of both slots' deltas and of the embeddings, asked for with the delta off again."""
    embeds = conditioning.prompt_embeds.clone().requires_grad_()
    timesteps = torch.tensor([400, 700])
    with delta.on(scale=0.5):
        predicted = base.predict(
            base.backbone, initial_noise(base.latent_shape, [1, 2]), timesteps, conditioning.with_embeds(embeds)
        )
    return list(torch.autograd.grad(predicted.square().sum(), [*delta.parameters(), embeds]))


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_those_without(name: str) -> None:
    base, delta, conditioning = made(name)
    try:
        plain = gradients(base, delta, conditioning)
        checkpointed(base, delta)
        assert delta.switches()[0][0] == 0
        for own, wanted in zip(gradients(base, delta, conditioning), plain, strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-5, atol=1e-7)
        assert all(float(own.abs().max()) > 0 for own in plain)
    finally:
        base.backbone.disable_gradient_checkpointing()
        delta.detach()


def test_without_the_delta_the_recomputation_is_another_model_s() -> None:
    """What diffusers' own checkpointing does here: the test above would not pass with it."""
    base, delta, conditioning = made("sdxl")
    try:
        wanted = gradients(base, delta, conditioning)
        base.backbone.enable_gradient_checkpointing(
            lambda block, *inputs: checkpoint(block, *inputs, use_reentrant=False)
        )
        try:
            found = gradients(base, delta, conditioning)
        except CheckpointError:
            return
        assert not all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(found, wanted, strict=True))
    finally:
        base.backbone.disable_gradient_checkpointing()
        delta.detach()


def test_fewer_activations_are_kept() -> None:
    base, delta, conditioning = made("sdxl")

    def kept() -> int:
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        embeds = conditioning.prompt_embeds.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            base.predict(
                base.backbone,
                initial_noise(base.latent_shape, [1, 2]),
                torch.tensor([400, 700]),
                conditioning.with_embeds(embeds),
            )
        return total

    try:
        before = kept()
        checkpointed(base, delta)
        assert kept() < before / 2
    finally:
        base.backbone.disable_gradient_checkpointing()
        delta.detach()


def test_a_module_without_blocks_is_refused() -> None:
    base, delta, _ = made("sdxl")
    delta.detach()
    base.pipeline.unet, unet = nn.Linear(1, 1), base.pipeline.unet
    try:
        with pytest.raises(ValueError, match="a Linear has no gradient checkpointing"):
            checkpointed(base, delta)
    finally:
        base.pipeline.unet = unet
