"""The projection: what a delta may touch, by hand, in a layer, and in the erasures of every method that trains."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from quick import SETTINGS, VARIANTS, rows
from torch import nn

from advanchor import methods
from advanchor.methods import adv_anchor, guarded_anchor
from advanchor.models.base import Base
from advanchor.models.profile import sampled_prompts
from advanchor.training.context import Context, TrainingSettings
from advanchor.training.delta import Delta, DeltaLinear
from advanchor.training.projection import mentioned, projection, projections

TRAINED: dict[str, TrainingSettings] = {
    label: settings
    for label, settings in (SETTINGS | VARIANTS).items()
    if isinstance(settings, TrainingSettings)
    and settings.name != "no_op"
    and settings.trained_weights == "cross_attention_kv"
}
QUICK = {
    "steps": 3, "anchor_steps": 2, "lr": 1e-2, "anchor_lr": 1e-2, "batch_size": 2, "num_latents": 2, "latent_steps": 2,
    "retain_prompts": 30,
}  # fmt: skip


def test_two_directions_are_told_apart_and_the_kept_one_is_exact() -> None:
    # One token beside the first: the concept is (1, 1, 0), a retained prompt (0, 1, 0), and (0, 0, 1) is kept exactly.
    concept = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]])
    retained = 1e6 * torch.diag(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    p = projection(concept, retained, torch.tensor([[0.0], [0.0], [1.0]]), ridge=1e-6)
    # All of what dW does to the concept is now done along the first axis; the retained prompt feels nothing of it.
    torch.testing.assert_close(p, torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), atol=1e-4, rtol=0)
    assert torch.allclose(p @ concept[0, 1], concept[0, 1], atol=1e-4)


def test_a_layer_reads_through_its_projection() -> None:
    layer = DeltaLinear(nn.Linear(3, 2, bias=False), slots=2)
    nn.init.normal_(layer.delta_weight)
    p, x = torch.randn(2, 3, 3), torch.randn(4, 5, 3)
    layer.projection, layer.scale = p, 0.5
    changes = [rows @ (dw @ own).T for rows, dw, own in zip(x.split(2), layer.delta_weight, p, strict=True)]
    torch.testing.assert_close(layer(x), layer.base(x) + 0.5 * torch.cat(changes))


def test_only_readers_of_embeddings_are_projected_and_only_inside(base: Base) -> None:
    delta = Delta(base.backbone, "cross_attention")
    with delta.projected(torch.eye(delta.layers[next(iter(delta.layers))].base.in_features)[None]):
        projected = {name.rpartition(".")[2] for name, layer in delta.layers.items() if layer.projection is not None}
    assert projected == {"to_k", "to_v"}
    assert all(layer.projection is None for layer in delta.layers.values())


def erased(context: Context, settings: Any, **changed: float) -> dict[str, torch.Tensor]:
    (erasure,) = methods.erase(context, settings.model_copy(update=changed))
    return erasure.delta


def change(context: Context, delta: dict[str, torch.Tensor], prompts: list[str]) -> float:
    """How far keys and values of prompts move, as a share of how far the concept's do."""

    def moved(embeds: torch.Tensor) -> float:
        return float(sum((embeds @ dw.T).square().mean() for dw in delta.values()))

    return moved(context.base.encode(prompts).prompt_embeds) / moved(context.e_c.prompt_embeds)


@pytest.mark.parametrize("row", rows(TRAINED))
def test_behind_it_retained_prompts_move_less_and_the_empty_one_not_at_all(context: Context, row: str) -> None:
    settings = TRAINED[row]
    free = erased(context, settings, retain_weight=0)
    kept = erased(context, settings, retain_weight=1000, retain_prompts=30)
    sampled = sampled_prompts(context.base.profile.vocabulary, 30, seed=0)
    retained = [prompt for prompt in sampled if not mentioned(context.concepts[0], prompt)]
    assert change(context, kept, retained) < 0.2 * change(context, free, retained)
    assert change(context, kept, [""]) < 1e-6 < change(context, free, [""])


def test_the_rows_above_hold_every_method_that_trains_weights() -> None:
    trained = {name for name, method in methods.METHODS.items() if issubclass(method.Settings, TrainingSettings)}
    assert {settings.name for settings in TRAINED.values()} == trained - {"no_op"}


def test_it_is_about_what_reads_prompts() -> None:
    wrong = {"retain_weight": 0.5, "trained_weights": "cross_attention"}
    with pytest.raises(ValidationError, match=r"retain_weight: 0\.5 goes with trained_weights: cross_attention_kv"):
        adv_anchor.Settings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"retain_weight: 1 goes with trained_weights: cross_attention_kv"):
        guarded_anchor.Settings(trained_weights="cross_attention")
    assert guarded_anchor.Settings(trained_weights="cross_attention", retain_weight=0)


def test_the_delta_is_what_the_student_was_trained_with(context: Context) -> None:
    """What is published holds the projection in it: the engine, now without one, has the same."""
    settings = guarded_anchor.Settings(**QUICK)  # type: ignore[arg-type]
    (erasure,) = methods.erase(context, settings)
    held = context.engine.export()
    assert all(torch.equal(held[name][0], dw) for name, dw in erasure.delta.items())
    p = projections(context, settings)["text"][0].double()
    for dw in erasure.delta.values():  # dW lies in the row space of P, as nothing else does
        residual = dw.double() - dw.double() @ torch.linalg.pinv(p, rtol=1e-5) @ p
        assert residual.norm() < 1e-2 * dw.norm()


def test_hidden_names_are_not_retained(context: Context) -> None:
    """What no prompt of the projection mentions moves more behind it than what is told."""
    sampled = sampled_prompts(context.base.profile.vocabulary, 60, seed=0)
    name = next(word for prompt in sampled for word in prompt.split() if len(word) > 4)
    settings = guarded_anchor.Settings(**QUICK | {"retain_weight": 1000, "retain_prompts": 60})  # type: ignore[arg-type]
    hidden = settings.model_copy(update={"retain_without": (name,)})
    told, untold = (projections(context, own)["text"][0] for own in (settings, hidden))
    named = context.base.encode([prompt for prompt in sampled if name in prompt.split()]).prompt_embeds[:, 1:]
    assert (named @ untold.T).norm() > (named @ told.T).norm()
