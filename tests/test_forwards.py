"""How often the methods ask the UNet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from quick import ANCHOR_STEPS, BATCH_SIZE, LATENT_STEPS, NUM_LATENTS, SETTINGS, STEPS, adv
from torch import Tensor, nn

from advanchor import estimate, methods
from advanchor.plan import Task
from advanchor.training import Context


@dataclass
class Count:
    calls: int = 0
    rows: int = 0


@contextmanager
def counted(unet: nn.Module) -> Iterator[Count]:
    count = Count()

    def seen(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        count.calls += 1
        count.rows += len(arguments[0])

    handle = unet.register_forward_pre_hook(seen)
    try:
        yield count
    finally:
        handle.remove()


S, A = STEPS, ANCHOR_STEPS
CALLS = {  # beside the LATENT_STEPS of the latents; 1 call each for a batch's constants, its target, its student step
    ("alternating", False): S * (1 + A + 1 + 1),
    ("sequential", False): S * (1 + A) + S * (1 + 1),
    ("cyclical", False): S * 1 + A * S + S * (1 + 1),
    ("sequential", True): S * (1 + A) + S * (1 + 1 + 1),  # the student's new batches need their neutral constant
    ("cyclical", True): A * S * (1 + 1) + S * (1 + 1 + 1),  # every sweep has new constants
}


@pytest.mark.parametrize(("strategy", "redraw"), CALLS)
def test_the_teachers_constants_are_predicted_once(context: Context, strategy: str, redraw: bool) -> None:
    settings = adv(strategy=strategy, redraw=redraw, anchor_lr=1e-4)  # a rate at which no search ends early
    with counted(context.base.unet) as count:
        methods.erase(context, settings)
    assert count.calls == LATENT_STEPS + CALLS[strategy, redraw]


def test_alternating_needs_a_third_of_the_authors_forwards(context: Context) -> None:
    """Per batch: e_c and e_n once, A anchors, 1 target, the student on two prompts. 51 * (2 + 30 + 1 + 2) = 1,785."""
    with counted(context.base.unet) as count:
        methods.erase(context, adv(anchor_lr=1e-4))
    sampling = LATENT_STEPS * 2 * NUM_LATENTS  # with guidance
    assert count.rows == sampling + S * BATCH_SIZE * (2 + A + 1 + 2)


@pytest.mark.parametrize("name", ["fixed_anchor", "esd"])
def test_the_other_methods_forwards(context: Context, name: str) -> None:
    with counted(context.base.unet) as count:
        methods.erase(context, SETTINGS[name])
    if name == "fixed_anchor":  # per batch: the anchor's constant, the neutral constant, the student
        assert count.calls == LATENT_STEPS + S * 3
    else:  # per batch: the student's own sampling of 0, 1 or 2 steps, the constants, the student; no latents
        assert S * 2 <= count.calls <= S * (2 + 2)


@pytest.mark.parametrize("method", ["adv_anchor", "hardened_anchor"])
def test_an_estimate_is_what_it_takes_at_most(context: Context, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of forward passes, backward ones not counted."""
    monkeypatch.setattr(estimate, "BACKWARD", 0.0)
    with counted(context.base.unet) as count:
        methods.erase(context, SETTINGS[method])
    expected = estimate.training_rows(Task.model_construct(method=SETTINGS[method]))
    assert 0.9 * expected <= count.rows <= expected
