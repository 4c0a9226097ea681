"""How often the methods ask the UNet, and that they say so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from quick import (
    ANCHOR_STEPS,
    BATCH_SIZE,
    LATENT_STEPS,
    NUM_LATENTS,
    SETTINGS,
    STEPS,
    STRATEGIES,
    VARIANTS,
    adv,
    rows,
)
from torch import Tensor, nn

from advanchor import methods
from advanchor.artifacts import sha256, to_bytes
from advanchor.methods import continue_from
from advanchor.methods.anchors import SearchSettings
from advanchor.training.context import Context
from advanchor.training.cost import Cost


@dataclass
class Count:
    calls: int = 0
    rows: int = 0
    backwards: int = 0


@contextmanager
def counted(unet: nn.Module) -> Iterator[Count]:
    """How often the UNet is called, on how many rows, and through how many rows gradients come back."""
    count = Count()

    def differentiated(gradient: Tensor) -> None:
        count.backwards += len(gradient)

    def seen(module: nn.Module, arguments: tuple[Tensor, ...], output: Any) -> None:
        count.calls += 1
        count.rows += len(arguments[0])
        if output[0].requires_grad:
            output[0].register_hook(differentiated)

    handle = unet.register_forward_hook(seen)
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
    with counted(context.base.backbone) as count:
        methods.erase(context, settings)
    assert count.calls == LATENT_STEPS + CALLS[strategy, redraw]


def test_alternating_needs_a_third_of_the_authors_forwards(context: Context) -> None:
    """Per batch: e_c and e_n once, A anchors, 1 target, the student on two prompts. 51 * (2 + 30 + 1 + 2) = 1,785."""
    with counted(context.base.backbone) as count:
        methods.erase(context, adv(anchor_lr=1e-4))
    sampling = LATENT_STEPS * 2 * NUM_LATENTS  # with guidance
    assert count.rows == sampling + S * BATCH_SIZE * (2 + A + 1 + 2)


@pytest.mark.parametrize("name", ["fixed_anchor", "esd"])
def test_the_other_methods_forwards(context: Context, name: str) -> None:
    with counted(context.base.backbone) as count:
        methods.erase(context, SETTINGS[name])
    if name == "fixed_anchor":  # per batch: the anchor's constant, the neutral constant, the student
        assert count.calls == LATENT_STEPS + S * 3
    else:  # per batch: the student's own sampling of 0, 1 or 2 steps, the constants, the student; no latents
        assert S * 2 <= count.calls <= S * (2 + 2)


# --- what methods say that they cost

NO_END = {"anchor_lr": 1e-6}  # at which no search ends early
ROWS: dict[str, Any] = {label: own for label, own in (SETTINGS | VARIANTS).items() if own.name != "esd"} | {
    "guarded_anchor without a search": SETTINGS["guarded_anchor"].model_copy(update={"anchor_steps": 0}),
    "guarded_anchor from a similar concept": SETTINGS["guarded_anchor"].model_copy(
        update={"start": "similar", "start_concept": "circle"}
    ),
    **{
        f"adv_anchor without a search, {strategy}": adv(anchor_steps=0, strategy=strategy, redraw=True)
        for strategy in STRATEGIES
    },
    "guarded_anchor, drawn afresh": SETTINGS["guarded_anchor"].model_copy(update={"redraw": True}),
    "hardened_anchor without sampled prompts": SETTINGS["hardened_anchor"].model_copy(update={"sampled_weight": 0.0}),
    "hardened_anchor without preserve term": SETTINGS["hardened_anchor"].model_copy(update={"preserve_weight": 0.0}),
}


def endless(settings: Any) -> Any:
    return settings.model_copy(update=NO_END) if isinstance(settings, SearchSettings) else settings


def counted_cost(context: Context, settings: Any) -> Cost:
    with counted(context.base.backbone) as count:
        methods.erase(context, settings)
    return Cost(count.rows, count.backwards)


@pytest.mark.parametrize("row", rows(ROWS))
def test_a_method_costs_what_it_says(context: Context, row: str) -> None:
    settings = endless(ROWS[row])
    assert counted_cost(context, settings) == methods.cost(settings, context.concepts[0])


def test_an_attribute_costs_a_prediction_of_each_draw(context: Context) -> None:
    described = context.concepts[0].model_copy(update={"attributes": {"red star": 0.5, "circle": 0.25}})
    own = Context(context.base, context.engine, context.delta, [described], [0])
    for settings in (endless(SETTINGS["adv_anchor"]), endless(SETTINGS["guarded_anchor"])):
        assert counted_cost(own, settings) == methods.cost(settings, described)
        more = methods.cost(settings, described).forwards - methods.cost(settings, context.concepts[0]).forwards
        assert more == 2 * S * BATCH_SIZE


@pytest.mark.slow
def test_what_esd_costs_is_a_mean_over_its_draws(context: Context) -> None:
    """0 to 2 steps of its own sampling before each of 30 steps: 1 on average, with a deviation of 0.15."""
    settings = SETTINGS["esd"].model_copy(update={"steps": 30, "partial_steps": 3})
    found, said = counted_cost(context, settings), methods.cost(settings, context.concepts[0])
    assert found.backwards == said.backwards == 30 * BATCH_SIZE
    sampled, expected = (cost.forwards - 30 * BATCH_SIZE * (2 + 1) for cost in (found, said))
    assert expected == 30 * BATCH_SIZE * 2 * 1
    assert 0.55 * expected <= sampled <= 1.45 * expected  # three deviations


def test_what_goes_on_from_a_delta_costs_what_its_method_does(context: Context, tmp_path: Path) -> None:
    zero = {name: p[0].detach().clone() for name, p in context.delta.named_parameters().items()}
    (tmp_path / "start.safetensors").write_bytes(data := to_bytes(zero, {}))
    start: dict[str, Any] = {"start": str(tmp_path / "start.safetensors"), "start_sha256": sha256(data)}
    inner = endless(SETTINGS["guarded_anchor"])
    settings = continue_from.Settings(lr=1e-3, method=inner, round=1, **start)
    found = counted_cost(context, settings)
    assert found == methods.cost(settings, context.concepts[0]) == methods.cost(inner, context.concepts[0])
    assert found.backwards > 0


def test_every_method_is_held_to_what_it_says() -> None:
    assert {settings.name for settings in ROWS.values()} | {"esd", "continue_from"} == methods.METHODS.keys()


def test_a_backward_pass_counts_as_two_forwards() -> None:
    assert Cost(5, 3).equivalents == 5 + 2 * 3
