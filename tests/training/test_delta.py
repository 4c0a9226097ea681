"""One backbone, two voices: with the delta off it is the teacher, bit for bit; with it on, the student."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from advanchor.training.delta import Delta, DeltaLinear

EVERY = ("cross_attention", "cross_attention_kv")


@pytest.fixture
def stock(tiny_base: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(tiny_base / "unet")


@pytest.fixture
def unet(tiny_base: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(tiny_base / "unet")


@torch.no_grad()
def output(unet: nn.Module, rows: slice = slice(2)) -> Tensor:
    """Of some of six rows."""
    generator = torch.Generator().manual_seed(1)
    noisy, embeds = torch.randn(6, 4, 8, 8, generator=generator), torch.randn(6, 16, 32, generator=generator)
    timesteps = torch.tensor([10, 900, 300, 20, 700, 500])
    return unet(noisy[rows], timesteps[rows], encoder_hidden_states=embeds[rows]).sample


@torch.no_grad()
def randomise(delta: Delta, slot: int = 0) -> dict[str, Tensor]:
    """All slots; returns one slot's tensors."""
    generator = torch.Generator().manual_seed(2)
    for parameter in delta.parameters():
        parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return {name: parameter[slot].detach().clone() for name, parameter in delta.named_parameters().items()}


@torch.no_grad()
def add(unet: nn.Module, delta: dict[str, Tensor], scale: float = 1.0) -> nn.Module:
    parameters = dict(unet.named_parameters())
    for name, tensor in delta.items():
        parameters[name].add_(scale * tensor)
    return unet


@pytest.mark.parametrize("trained_weights", EVERY)
def test_off_is_the_untouched_unet_bit_for_bit(unet: nn.Module, stock: nn.Module, trained_weights: str) -> None:
    randomise(Delta(unet, trained_weights))
    assert torch.equal(output(unet), output(stock))


@pytest.mark.parametrize("trained_weights", EVERY)
def test_a_zero_delta_says_nothing_when_on(unet: nn.Module, stock: nn.Module, trained_weights: str) -> None:
    delta = Delta(unet, trained_weights)
    with delta.on():
        assert torch.equal(output(unet), output(stock))


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
@pytest.mark.parametrize("trained_weights", EVERY)
def test_on_is_the_stock_unet_with_changed_weights(
    unet: nn.Module, stock: nn.Module, trained_weights: str, scale: float
) -> None:
    delta = Delta(unet, trained_weights)
    changes, before = randomise(delta), output(stock)
    with delta.on(scale):
        student = output(unet)
    assert (student - before).abs().max() > 1e-3
    torch.testing.assert_close(student, output(add(stock, changes, scale)), atol=1e-5, rtol=1e-5)


def test_cross_attention_trains_every_parameter_with_attn2_in_its_name(unet: nn.Module, stock: nn.Module) -> None:
    expected = {name: p.shape for name, p in stock.named_parameters() if "attn2" in name}
    assert any(name.endswith("to_out.0.bias") for name in expected)
    delta = Delta(unet, "cross_attention")
    assert {name: p.shape[1:] for name, p in delta.named_parameters().items()} == expected


def test_cross_attention_kv_trains_keys_and_values_only(unet: nn.Module, stock: nn.Module) -> None:
    endings = ("attn2.to_k.weight", "attn2.to_v.weight")
    delta = Delta(unet, "cross_attention_kv")
    assert set(delta.named_parameters()) == {name for name, _ in stock.named_parameters() if name.endswith(endings)}


def test_only_the_delta_learns(unet: nn.Module) -> None:
    delta = Delta(unet, "cross_attention")
    learning = {id(parameter) for parameter in unet.parameters() if parameter.requires_grad}
    assert learning == {id(parameter) for parameter in delta.parameters()}
    assert all(parameter.dtype == torch.float32 for parameter in delta.parameters())


def test_an_unknown_setting_names_the_choices(unet: nn.Module) -> None:
    with pytest.raises(ValueError, match="'xattn' is not one of cross_attention_kv, cross_attention, readers, which"):
        Delta(unet, "xattn")


def test_base_tensors_are_the_stock_ones_under_the_same_names(unet: nn.Module, stock: nn.Module) -> None:
    tensors, known = Delta(unet, "cross_attention").base_tensors(), dict(stock.named_parameters())
    assert tensors and all(torch.equal(tensor, known[name]) for name, tensor in tensors.items())


def test_detach_puts_the_plain_linears_back(unet: nn.Module, stock: nn.Module) -> None:
    types = {name: type(module) for name, module in unet.named_modules()}
    delta = Delta(unet, "cross_attention")
    assert any(isinstance(module, DeltaLinear) for module in unet.modules())
    randomise(delta)
    delta.detach()
    assert {name: type(module) for name, module in unet.named_modules()} == types
    assert unet.state_dict().keys() == stock.state_dict().keys()
    assert torch.equal(output(unet), output(stock))


def test_the_student_is_silent_after_an_exception(unet: nn.Module, stock: nn.Module) -> None:
    delta = Delta(unet, "cross_attention_kv")
    randomise(delta)
    with pytest.raises(KeyboardInterrupt), delta.on():
        raise KeyboardInterrupt
    assert torch.equal(output(unet), output(stock))


def test_on_inside_on_restores_the_outer_scale(unet: nn.Module) -> None:
    delta = Delta(unet, "cross_attention_kv")
    randomise(delta)
    with delta.on(0.5):
        half = output(unet)
        with delta.on():
            assert not torch.equal(output(unet), half)
        assert torch.equal(output(unet), half)


# --- several slots


def student_of_slot(folder: Path, trained_weights: str, slot: int, rows: slice) -> Tensor:
    """What a stock UNet with the weights W + dW of one of three slots says."""
    delta = Delta(UNet2DConditionModel.from_pretrained(folder / "unet"), trained_weights, slots=3)
    changes = randomise(delta, slot)
    delta.detach()
    return output(add(delta.backbone, changes), rows)


@pytest.mark.parametrize("trained_weights", EVERY)
def test_rows_meet_the_delta_of_their_own_slot(tiny_base: Path, unet: nn.Module, trained_weights: str) -> None:
    delta = Delta(unet, trained_weights, slots=3)
    randomise(delta)
    with delta.on():
        packed = output(unet, slice(6))
    for slot in range(3):
        rows = slice(2 * slot, 2 * slot + 2)
        alone = student_of_slot(tiny_base, trained_weights, slot, rows)
        torch.testing.assert_close(packed[rows], alone, atol=1e-5, rtol=1e-4)
        other = student_of_slot(tiny_base, trained_weights, (slot + 1) % 3, rows)
        assert (packed[rows] - other).abs().max() > 1e-3


@pytest.mark.parametrize("trained_weights", EVERY)
def test_one_slot_may_speak_for_all_rows(tiny_base: Path, unet: nn.Module, trained_weights: str) -> None:
    delta = Delta(unet, trained_weights, slots=3)
    randomise(delta)
    with delta.on(slots=2):
        alone = student_of_slot(tiny_base, trained_weights, 2, slice(6))
        torch.testing.assert_close(output(unet, slice(6)), alone, atol=1e-5, rtol=1e-4)


def test_the_first_slots_may_share_the_rows(tiny_base: Path, unet: nn.Module) -> None:
    delta = Delta(unet, "cross_attention", slots=3)
    randomise(delta)
    with delta.on(slots=slice(2)):
        packed = output(unet, slice(6))
    for slot, rows in enumerate((slice(0, 3), slice(3, 6))):
        alone = student_of_slot(tiny_base, "cross_attention", slot, rows)
        torch.testing.assert_close(packed[rows], alone, atol=1e-5, rtol=1e-4)


def test_a_slots_gradient_is_of_its_own_rows() -> None:
    layer = DeltaLinear(nn.Linear(3, 2), slots=2)
    layer.scale = 1.0
    x = torch.arange(12.0).view(4, 3)
    layer(x)[:2].sum().backward()
    assert layer.delta_weight.grad is not None and layer.delta_bias is not None and layer.delta_bias.grad is not None
    assert torch.equal(layer.delta_weight.grad[0], x[:2].sum(0).expand(2, 3)) and not layer.delta_weight.grad[1].any()
    assert layer.delta_bias.grad.tolist() == [[2, 2], [0, 0]]


def test_a_slot_that_is_not_there_is_refused(unet: nn.Module) -> None:
    delta = Delta(unet, "cross_attention_kv", slots=3)
    with pytest.raises(IndexError, match="slots 3 of a delta that has 3"), delta.on(slots=3):
        pass


def test_checked_names_what_is_missing_and_what_does_not_belong(unet: nn.Module) -> None:
    delta = Delta(unet, "cross_attention_kv")
    tensors = randomise(delta)
    assert delta.checked(tensors) is tensors
    first = min(tensors)
    with pytest.raises(ValueError, match=f"lacks 1 tensors, for example '{first}'"):
        delta.checked({name: tensor for name, tensor in tensors.items() if name != first})
    with pytest.raises(ValueError, match="has 1 tensors that cross_attention_kv does not train, for example 'conv'"):
        delta.checked(tensors | {"conv": torch.zeros(1)})
