"""What trained methods share: the plan of the draws, the loop, and what ranks make of one batch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from advanchor.methods.adv_anchor import Anchor, Settings
from advanchor.models.conditioning import Conditioning
from advanchor.training.context import Batch, Context, TrainingSettings
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine, derived_seed, shard
from advanchor.training.loop import fit

SETTINGS = Settings(steps=2, batch_size=4, num_latents=5, latent_steps=2, preserve_weight=10, lr=1e-3)


class GradientKeeper(TorchEngine):
    """Takes no steps, so that a loop's gradients can be looked at; rank `rank` of `world_size` in one process."""

    def __init__(self, module: nn.Module, parameters: dict[str, nn.Parameter], rank: int, world_size: int) -> None:
        super().__init__(module, parameters)
        self.rank, self.world_size = rank, world_size

    def step(self) -> None: ...


def on_rank(context: Context, rank: int, world_size: int) -> Context:
    delta = context.delta
    engine = GradientKeeper(context.base.backbone, delta.named_parameters(), rank, world_size)
    return Context(context.base, engine, delta, context.concepts, context.seeds)


@torch.no_grad()
def randomise(delta: Delta) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    for parameter in delta.parameters():
        parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return {name: parameter[0].detach().clone() for name, parameter in delta.named_parameters().items()}


def test_shards_are_the_rows_in_order() -> None:
    rows = list(range(6))
    assert [rows[shard(6, rank, 3)] for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 5 does not divide by 2 ranks"):
        shard(5, 0, 2)


def test_derived_seeds_keep_their_parts_apart() -> None:
    assert derived_seed("a", 1) == derived_seed("a", "1")
    assert len({derived_seed("a", 12), derived_seed("a", 1, 2), derived_seed("a1", 2), derived_seed(2, "a1")}) == 4
    assert all(0 <= derived_seed(i) < 2**63 for i in range(100))


def test_two_ranks_draw_one_ranks_batches(context: Context) -> None:
    latents = context.latents(SETTINGS)
    whole = context.batches(SETTINGS, latents)
    halves = [on_rank(context, rank, 2).batches(SETTINGS, latents) for rank in range(2)]
    assert len(whole) == SETTINGS.steps
    for batch, first, second in zip(whole, *halves, strict=True):
        for field in ("noisy_latents", "timesteps", "templates"):
            assert torch.equal(torch.cat([getattr(first, field), getattr(second, field)], dim=1), getattr(batch, field))


def test_two_ranks_sample_one_ranks_latents(context: Context) -> None:
    whole = context.latents(SETTINGS)
    first, second = (on_rank(context, rank, 2).latents(SETTINGS) for rank in range(2))
    assert whole.shape == (1, 5, 4, 8, 8)
    torch.testing.assert_close(
        torch.cat([first, second], dim=1)[:, :5], whole, atol=1e-4, rtol=1e-4
    )  # 3 each; one to spare


def test_sweeps_and_seeds_draw_differently(context: Context) -> None:
    latents = context.latents(SETTINGS)
    other = Context(context.base, context.engine, context.delta, context.concepts, [1])
    plans = [
        context.batches(SETTINGS, latents, 0),
        context.batches(SETTINGS, latents, 1),
        other.batches(SETTINGS, latents),
    ]
    first = plans[0][0].noisy_latents
    assert torch.equal(context.batches(SETTINGS, latents)[0].noisy_latents, first)
    assert not torch.equal(plans[1][0].noisy_latents, first) and not torch.equal(plans[2][0].noisy_latents, first)


def draws(context: Context, **settings: Any) -> list[Batch]:
    changed = SETTINGS.model_copy(update=settings)
    return context.batches(changed, context.latents(changed))


def test_latents_and_constants_are_the_teachers_whatever_the_delta(context: Context) -> None:
    def known() -> tuple[Tensor, Tensor]:
        return context.latents(SETTINGS), context.teacher_constants(draws(context)[0], {"concept": context.e_c})[
            "concept"
        ]

    before = known()
    randomise(context.delta)
    assert all(torch.equal(a, b) for a, b in zip(known(), before, strict=True))


def test_constants_are_predicted_once(context: Context) -> None:
    batch, rows = draws(context)[0], []
    handle = context.base.backbone.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    for names in (("concept",), ("concept", "neutral"), ("neutral", "concept")):
        known = context.teacher_constants(batch, {n: context.e_c if n == "concept" else context.e_n for n in names})
        assert set(names) <= known.keys()
    handle.remove()
    assert rows == [4, 4]  # the concept once, the neutral prompt once, a batch of four each


def stock_unet(folder: Path, changes: Mapping[str, Tensor] | None = None) -> nn.Module:
    """With the weights W, or W + dW."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    parameters = dict(unet.named_parameters())
    with torch.no_grad():
        for name, tensor in (changes or {}).items():
            parameters[name].add_(tensor)
    return unet


def test_the_first_loss_of_fit_by_hand(context: Context, tiny_base: Path) -> None:
    """MSE( eps(x_t, e_c), target ) + 10 * MSE( eps(x_t, e_n), eps0(x_t, e_n) ), from stock UNets, the delta not 0."""
    batch, seen = draws(context)[0], []
    teacher, student = stock_unet(tiny_base), stock_unet(tiny_base, randomise(context.delta))
    context.report = lambda phase, step, total, loss: seen.append((phase, step, total, loss))
    fit(context, SETTINGS, [batch], lambda _: torch.full_like(batch.noisy_latents, 0.25))

    def eps(unet: nn.Module, conditioning: Conditioning) -> Tensor:
        embeds = conditioning.prompt_embeds[batch.templates[0]]
        return unet(batch.noisy_latents[0], batch.timesteps[0], encoder_hidden_states=embeds).sample

    erase = (eps(student, context.e_c) - 0.25).square().mean().item()
    preserve = (eps(student, context.e_n) - eps(teacher, context.e_n)).square().mean().item()
    assert preserve > 1e-4
    [(phase, step, total, loss)] = seen
    assert (phase, step, total) == ("student", 1, SETTINGS.steps)
    assert loss == pytest.approx(erase + 10 * preserve, rel=1e-4)


def test_fitting_one_batch_lowers_its_loss(context: Context) -> None:
    seen: list[float] = []
    context.report = lambda phase, step, total, loss: seen.append(loss)
    batch, settings = draws(context)[0], SETTINGS.model_copy(update={"preserve_weight": 0.0})
    empty = context.teacher_constants(batch, {"empty": context.base.encode(["", ""])})["empty"]
    fit(context, settings, [batch] * 10, lambda _: empty)
    assert seen[-1] < 0.7 * seen[0]


def test_a_report_that_raises_stops_the_task(context: Context) -> None:
    class Stop(Exception): ...

    def report(phase: str, step: int, total: int, loss: float) -> None:
        if step == 1:
            raise Stop

    context.report = report
    batches = draws(context)
    with pytest.raises(Stop):
        fit(context, SETTINGS, batches, lambda batch: torch.zeros_like(batch.noisy_latents))


def gradients(context: Context, settings: TrainingSettings, target: Callable[[Batch], Tensor]) -> dict[str, Tensor]:
    """Of the loop's first step, at a delta that is not 0."""
    batch = draws(context)[0]
    for parameter in context.delta.parameters():
        parameter.grad = None
    fit(context, settings, [batch], target)
    return {name: p.grad.clone() for name, p in context.delta.named_parameters().items() if p.grad is not None}


def test_the_mean_of_two_ranks_gradients_is_one_ranks(context: Context) -> None:
    latents = context.latents(SETTINGS)
    randomise(context.delta)

    def of_rank(rank: int, world_size: int) -> dict[str, Tensor]:
        ranked = on_rank(context, rank, world_size)
        ranked.latents = lambda _: latents  # type: ignore[method-assign] # no process to gather the others' from
        return gradients(ranked, SETTINGS, lambda batch: torch.zeros_like(batch.noisy_latents))

    whole, first, second = of_rank(0, 1), of_rank(0, 2), of_rank(1, 2)
    assert whole.keys() == context.delta.named_parameters().keys()
    for name, gradient in whole.items():
        mean = (first[name] + second[name]) / 2
        assert (mean - gradient).norm() < 1e-4 * gradient.norm()
        assert (first[name] - gradient).norm() > 1e-2 * gradient.norm()  # the halves themselves differ


def test_the_mean_of_two_ranks_anchor_losses_is_one_ranks(context: Context) -> None:
    latents = context.latents(SETTINGS)

    def of_rank(rank: int, world_size: int) -> Tensor:
        ranked = on_rank(context, rank, world_size)
        return Anchor(ranked, SETTINGS).loss(ranked.batches(SETTINGS, latents)[0]).detach()

    torch.testing.assert_close((of_rank(0, 2) + of_rank(1, 2)) / 2, of_rank(0, 1), atol=1e-8, rtol=1e-3)


# --- the plain engine


def test_an_engine_that_is_reset_starts_afresh(context: Context) -> None:
    def trained() -> dict[str, Tensor]:
        context.engine.reset(1e-3)
        return fit(context, SETTINGS, draws(context), lambda batch: torch.zeros_like(batch.noisy_latents))[0].delta

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_engine_that_loads_a_delta_forgets_its_optimizers_state(context: Context) -> None:
    changes = randomise(context.delta)

    def stepped() -> dict[str, Tensor]:
        context.engine.load(changes)
        return fit(context, SETTINGS, draws(context), lambda batch: torch.zeros_like(batch.noisy_latents))[0].delta

    first, second = stepped(), stepped()
    assert all(torch.equal(first[name], second[name]) for name in first)
    context.engine.load(changes)
    assert all(torch.equal(tensor[0], changes[name]) for name, tensor in context.engine.export().items())
