"""The guard: what a delta may touch, by hand, in a layer, and in an erasure."""

from typing import Any

import pytest
import torch
from torch import nn

from advanchor import methods
from advanchor.delta import Delta, DeltaLinear
from advanchor.guard import guard
from advanchor.methods.guarded_anchor import FarAnchor, Settings, along_and_aside, guards
from advanchor.models.base import Base
from advanchor.training import Batch, Context

QUICK = {
    "steps": 3, "anchor_steps": 2, "lr": 1e-2, "anchor_lr": 1e-2, "batch_size": 2, "num_latents": 2, "latent_steps": 2,
    "retain_prompts": 30,
}  # fmt: skip


def test_two_directions_are_told_apart_and_the_kept_one_is_exact() -> None:
    # One token beside the first: the concept is (1, 1, 0), a retained prompt (0, 1, 0), and (0, 0, 1) is kept exactly.
    concept = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]])
    retained = 1e6 * torch.diag(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    p = guard(concept, retained, torch.tensor([[0.0], [0.0], [1.0]]), ridge=1e-6)
    # All of what dW does to the concept is now done along the first axis; the retained prompt feels nothing of it.
    torch.testing.assert_close(p, torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), atol=1e-4, rtol=0)
    assert torch.allclose(p @ concept[0, 1], concept[0, 1], atol=1e-4)


def test_a_layer_reads_through_its_guard() -> None:
    layer = DeltaLinear(nn.Linear(3, 2, bias=False), slots=2)
    nn.init.normal_(layer.delta_weight)
    p, x = torch.randn(2, 3, 3), torch.randn(4, 5, 3)
    layer.guard, layer.scale = p, 0.5
    changes = [rows @ (dw @ own).T for rows, dw, own in zip(x.split(2), layer.delta_weight, p, strict=True)]
    torch.testing.assert_close(layer(x), layer.base(x) + 0.5 * torch.cat(changes))


def test_only_readers_of_embeddings_are_guarded_and_only_inside(base: Base) -> None:
    delta = Delta(base.unet, "cross_attention")
    with delta.guarded(torch.eye(delta.layers[next(iter(delta.layers))].base.in_features)[None]):
        guarded = {name.rpartition(".")[2] for name, layer in delta.layers.items() if layer.guard is not None}
    assert guarded == {"to_k", "to_v"}
    assert all(layer.guard is None for layer in delta.layers.values())


def erased(context: Context, **settings: float) -> dict[str, torch.Tensor]:
    (erasure,) = methods.erase(context, Settings(**QUICK | settings))
    return erasure.delta


def change(context: Context, delta: dict[str, torch.Tensor], prompts: list[str]) -> float:
    """How far keys and values of prompts move, as a share of how far the concept's do."""

    def moved(embeds: torch.Tensor) -> float:
        return float(sum((embeds @ dw.T).square().mean() for dw in delta.values()))

    return moved(context.base.encode(prompts).prompt_embeds) / moved(context.e_c.prompt_embeds)


def test_retained_prompts_move_less_and_the_empty_one_not_at_all(context: Context) -> None:
    free, kept = erased(context, retain_weight=0), erased(context, retain_weight=1000)
    others = ["a red star", "a blue circle", "a portrait of a person"]
    assert change(context, kept, others) < 0.2 * change(context, free, others)
    assert change(context, kept, [""]) < 1e-6 < change(context, free, [""])


def test_the_delta_is_what_the_student_was_trained_with(context: Context) -> None:
    """What is published holds the guard in it: the engine, now without one, has the same."""
    settings = Settings(**QUICK)
    (erasure,) = methods.erase(context, settings)
    held = context.engine.export()
    assert all(torch.equal(held[name][0], dw) for name, dw in erasure.delta.items())
    p = guards(context, settings)[0].double()
    for dw in erasure.delta.values():  # dW lies in the row space of P, as nothing else does
        residual = dw.double() - dw.double() @ torch.linalg.pinv(p, rtol=1e-5) @ p
        assert residual.norm() < 1e-2 * dw.norm()


def test_along_the_concept_and_aside_of_it() -> None:
    # d = (2, 0), m = (-1, 3): r = -2 / 4, and (0, 3) is left, 9 / 4 of |d|^2.
    m, d = torch.tensor([-1.0, 3.0]).view(1, 1, 1, 1, 2), torch.tensor([2.0, 0.0]).view(1, 1, 1, 1, 2)
    along, aside = along_and_aside(m, d)
    assert (along.item(), aside.item()) == (-0.5, 2.25)


@pytest.mark.parametrize(("start", "loss"), [("own", 1 + 0.4), ("superclass", 0.4)])
def test_at_the_start_the_concept_is_one_d_from_neutral(context: Context, start: str, loss: float) -> None:
    """Where e_adv = 0, r is 1 at the concept and 0 at its neutral prompt, and nothing is aside."""
    anchor = far_anchor(context, start=start, margin=0.4)
    torch.testing.assert_close(anchor.loss(first_batch(anchor)), torch.tensor([loss]), atol=1e-4, rtol=0)


def test_drift_is_measured_from_where_the_anchor_starts(context: Context) -> None:
    """A similar concept differs from neutral in many ways; where e_adv = 0 only its share along d counts against it."""
    anchor = far_anchor(context, start="similar", start_concept="circle", margin=5.0)
    batch = first_batch(anchor)
    (loss,) = anchor.loss(batch)
    known = batch.constants
    d, m = known["concept"] - known["neutral"], known["start"] - known["neutral"]
    along, aside = along_and_aside(m, d)
    torch.testing.assert_close(loss, (along + 5).mean(), atol=1e-3, rtol=1e-3)
    assert aside.mean() > 0.1


def test_the_student_is_sent_beyond_the_anchor(context: Context) -> None:
    near, far = far_anchor(context, beyond=0.0), far_anchor(context, beyond=0.5)
    batch = first_batch(near)
    eps_a, target = near.target(batch), far.target(batch)
    torch.testing.assert_close(target, eps_a - 0.5 * (batch.constants["concept"] - eps_a))


def far_anchor(context: Context, **settings: Any) -> FarAnchor:
    return FarAnchor(context, Settings(**QUICK | settings, anchor_init=0))


def first_batch(anchor: FarAnchor) -> Batch:
    return anchor.context.batches(anchor.settings, anchor.context.latents(anchor.settings))[0]
