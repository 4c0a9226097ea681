"""The arithmetic of the losses, of noising and of v-prediction, worked by hand."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.schedule import NoiseSchedule, add_noise
from advanchor.training import losses


def eps(*values: float) -> Tensor:
    """A noise prediction (1, 1, 1, n)."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_adv1_is_the_mean_of_the_product() -> None:
    # (1 * 3 + 2 * (-1)) / 2 = 0.5: an inner product, not a cosine
    assert losses.adv1(eps(1, 2), eps(3, -1)).item() == 0.5


def test_adv2_is_the_mean_product_of_the_differences_from_the_neutral_prediction() -> None:
    # ((3 - 1) * (2 - 1) + (0 - 1) * (5 - 1)) / 2 = (2 - 4) / 2 = -1
    assert losses.adv2(eps(3, 0), eps(2, 5), eps(1, 1)).item() == -1.0


def test_adv2_is_zero_for_the_neutral_prompt_as_anchor() -> None:
    assert losses.adv2(eps(1, 1), eps(2, 5), eps(1, 1)).item() == 0.0


def test_mse_is_the_mean_squared_error_of_each_concept() -> None:
    # ((1 - 3)^2 + (2 - 2)^2) / 2 = 2 and ((0 - 1)^2 + (2 + 1)^2) / 2 = 5
    first, second = torch.cat([eps(1, 2), eps(0, 2)]), torch.cat([eps(3, 2), eps(1, -1)])
    assert losses.mse(first, second).tolist() == [2.0, 5.0]


# alpha_bar 0.36 has sqrt 0.6 and sqrt(1 - 0.36) = 0.8; alpha_bar 0.64 has them the other way round
ALPHAS = torch.tensor([0.36, 0.64])


def test_add_noise_row_by_row() -> None:
    schedule = NoiseSchedule(ALPHAS, "epsilon")
    latents, noise = torch.tensor([2.0, 2.0]).view(2, 1, 1, 1), torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    noisy = add_noise(schedule, latents, noise, torch.tensor([0, 1]))
    # 0.6 * 2 + 0.8 * 1 = 2.0 and 0.8 * 2 + 0.6 * (-1) = 1.0
    assert noisy.flatten().tolist() == pytest.approx([2.0, 1.0])


def test_add_noise_is_the_models_own_scheduler(base: Base) -> None:
    latents, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    timesteps = torch.tensor([0, 400, 999])
    expected = base.pipeline.scheduler.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(add_noise(base.schedule, latents, noise, timesteps), expected)


def constant(unet: Any, value: float) -> UNet2DConditionModel:
    """The UNet with a last layer that always says `value`."""
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.constant_(unet.conv_out.bias, value)
    return unet


@pytest.mark.parametrize(("prediction_type", "expected"), [("epsilon", -1.0), ("v_prediction", 1.0)])
def test_a_prediction_is_epsilon_whatever_the_model_predicts(base: Base, prediction_type: str, expected: float) -> None:
    # x_0 = 2 and noise = 1 at alpha_bar 0.36: x_t = 0.6 * 2 + 0.8 * 1 = 2 and v = 0.6 * 1 - 0.8 * 2 = -1.
    # Back from v: epsilon = 0.8 * x_t + 0.6 * v = 1.6 - 0.6 = 1, the noise itself.
    unet, base.schedule = constant(base.backbone, -1.0), NoiseSchedule(ALPHAS, prediction_type)
    conditioning = Conditioning(torch.zeros(1, 16, 32))
    found = base.predict(unet, torch.full((1, 4, 8, 8), 2.0), torch.tensor([0]), conditioning)
    torch.testing.assert_close(found, torch.full((1, 4, 8, 8), expected))
