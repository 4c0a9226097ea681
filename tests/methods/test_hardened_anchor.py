"""Soft prompts in training: found against the student, and unlearned by it."""

from typing import Any

import pytest
import torch

from advanchor import models
from advanchor.concepts import Concept
from advanchor.methods.far_anchor import FarAnchor
from advanchor.methods.hardened_anchor import NOISY, Rounds, Settings, attack_loss, soft_prompts
from advanchor.models.base import Base
from advanchor.training import losses
from advanchor.training.context import Batch, Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

STAR = Concept(name="star", kind="object", templates=("a red {}", "a blue {}"), neutral=("a red shape", "a blue shape"))
QUICK: dict[str, Any] = {
    "steps": 1, "anchor_steps": 1, "lr": 2e-3, "batch_size": 2, "num_latents": 4, "latent_steps": 4,
    "start": "superclass", "retain_prompts": 20, "attacks": 2, "attack_steps": 10, "round_steps": 15,
    "sampled_weight": 3,
}  # fmt: skip


def quick(**changed: Any) -> Settings:
    return Settings(**QUICK | changed)


@pytest.fixture(scope="module")
def gallery() -> Base:
    return models.load("pocket")


@pytest.fixture
def context(gallery: Base) -> Any:
    delta = Delta(gallery.backbone, "cross_attention_kv")
    yield Context(gallery, TorchEngine(gallery.backbone, delta.named_parameters()), delta, [STAR], [0])
    delta.detach()


def drawn(context: Context, settings: Settings) -> tuple[torch.Tensor, Batch]:
    latents = context.latents(settings)
    return latents, context.batches(settings.model_copy(update={"batch_size": 8}), latents, "judged", NOISY)[0]


@pytest.mark.slow
def test_a_soft_prompt_is_found_against_the_student_and_no_weight_moves(context: Context) -> None:
    settings = Settings(**QUICK)
    _, batch = drawn(context, settings)
    assert int(batch.timesteps.min()) >= NOISY * context.base.schedule.num_train_timesteps
    with torch.no_grad():  # a student that has lost its way
        for weight in context.delta.parameters():
            weight.copy_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    before = [weight.clone() for weight in context.delta.parameters()]
    soft_prompt = soft_prompts(context, settings, "e_s")

    def loss() -> torch.Tensor:
        return attack_loss(context, soft_prompt, batch)

    at_first = loss().item()
    for _ in range(10):
        soft_prompt.step(loss(), batch.concepts)
    with context.student():
        (eps,) = context.predict(batch, soft_prompt.rows_of(torch.arange(2)).rows(batch.templates))
    assert batch.ideal is not None
    assert losses.mse(eps, batch.ideal).item() == pytest.approx(loss().item(), rel=1e-4)
    assert loss().item() < 0.9 * at_first
    assert all(torch.equal(a, b) for a, b in zip(before, context.delta.parameters(), strict=True))
    assert all(weight.grad is None for weight in context.delta.parameters())


def test_a_step_sees_soft_prompts_and_prompts_without_the_concept(context: Context) -> None:
    settings = quick(attack_steps=1, attack_weight=4)
    latents, batch = drawn(context, settings)
    rounds = Rounds(context, settings)
    assert rounds.retained[0] and not any("star" in prompt for prompt in rounds.retained[0])
    rounds.attack(0, latents)
    rounds.attack(1, latents)
    assert len(rounds.soft_prompts) == 4
    batch = context.batches(settings, latents)[0]
    target = torch.zeros_like(batch.noisy_latents)
    first, second, kept = rounds.terms(batch, target)
    assert (first.weight, second.weight, kept.weight) == (2, 2, 3)
    assert first.wanted is target and not torch.equal(
        first.conditioning.prompt_embeds, second.conditioning.prompt_embeds
    )
    with torch.no_grad():
        (eps0,) = context.predict(batch, kept.conditioning)
    assert torch.equal(kept.wanted, eps0)


def apart(context: Context, **changed: float) -> float:
    """How far the student is from the target under the soft prompts of a round, after its training."""
    settings = quick(**changed)
    latents, batch = drawn(context, settings)
    context.engine.reset(settings.lr)
    anchor, rounds = FarAnchor(context, settings), Rounds(context, settings)
    rounds.attack(0, latents)
    rounds.train(0, latents, anchor)
    with torch.no_grad(), context.student():
        said = [context.predict(batch, e_s.rows(batch.templates))[0] for e_s in rounds.soft_prompts]
        return sum(losses.mse(eps, anchor.target(batch)).item() for eps in said)


@pytest.mark.slow
def test_the_student_unlearns_what_soft_prompts_mean(context: Context) -> None:
    assert apart(context, attack_weight=1) < 0.8 * apart(context, attack_weight=1e-9)
