"""Fusing on a base that two text encoders and a pooled vector speak to, and whose noise is a flow."""

import pytest
import tiny
import torch
from fusing import erase, made

from advanchor import models
from advanchor.fusion.fuse import fuse, plan_fusion
from advanchor.fusion.neurons import TextEncoderError
from advanchor.models.base import Base
from advanchor.models.sampling import initial_noise


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Base]:
    folder = tmp_path_factory.mktemp("mmdit")
    torch.manual_seed(0)
    tiny.BUILD["sd3_without_t5"]().save_pretrained(folder / "base")
    run = erase(folder / "base", folder / "run", ("star", "circle"))
    return run, models.load(str(folder / "base"))


@torch.no_grad()
@pytest.mark.parametrize("way", ["closed_form", "anchor_edit", "task_arithmetic"])
def test_both_readers_are_fused_and_the_empty_prompt_stays(erased: tuple[str, Base], way: str) -> None:
    run, base = erased
    fusion = made(run, base, method=way)
    assert fusion.delta.keys() == {f"{name}.weight" for names in base.readers.values() for name in names}
    told = [base.encode([prompt]) for prompt in ("", "a red star", "a circle")]
    noise, timesteps = initial_noise(base.latent_shape, [1]), torch.tensor([500.0])
    was = [base.denoise(base.backbone, noise, timesteps, own) for own in told]
    with fusion.on(base):
        empty, *concepts = (
            (base.denoise(base.backbone, noise, timesteps, own) - before).norm()
            for own, before in zip(told, was, strict=True)
        )
    assert all(change > 0 for change in concepts)
    if way != "task_arithmetic":  # a sum of deltas that were trained without a projection
        assert all(empty < 1e-2 * change for change in concepts)


def test_neurons_say_why_they_cannot(erased: tuple[str, Base]) -> None:
    run, base = erased
    with pytest.raises(TextEncoderError, match=r"has CLIP\w+ and CLIP\w+; .* a single CLIP text encoder"):
        fuse(plan_fusion([run], {"method": "neurons"}), base)
