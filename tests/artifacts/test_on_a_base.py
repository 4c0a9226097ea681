"""Deltas on the base that they were made from, and on no other; from erasing to a stock pipeline in another process."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import advanchor
from advanchor.api import files_of
from advanchor.artifacts import (
    ArtifactError,
    delta_to_bytes,
    read_metadata,
    to_bytes,
)
from advanchor.artifacts.record import put_delta, read
from advanchor.concepts import Concept
from advanchor.methods.adv_anchor import Settings
from advanchor.models.base import Base
from advanchor.training.delta import Delta

QUICK = Settings(steps=2, anchor_steps=2, batch_size=2, num_latents=2, latent_steps=2, lr=1e-2, anchor_lr=1e-2)


def base_tensors(unet: nn.Module) -> dict[str, Tensor]:
    return {
        k: v.detach().clone()
        for k, v in unet.named_parameters()
        if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }


def random_delta(unet: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: 0.1 * torch.randn(v.shape, generator=generator) for k, v in base_tensors(unet).items()}


def write(path: Path, unet: nn.Module, delta: dict[str, Tensor]) -> Path:
    path.write_bytes(delta_to_bytes(delta, base_tensors(unet), {"base": "tiny"}))
    return path


def state(unet: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in unet.state_dict().items()}


def assert_state(unet: nn.Module, expected: dict[str, Tensor]) -> None:
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0])
def test_a_delta_is_added_to_its_tensors_alone(base: Base, tmp_path: Path, scale: float) -> None:
    delta, before = random_delta(base.backbone, 0), state(base.backbone)
    put_delta(base.backbone, read(write(tmp_path / "d", base.backbone, delta)), scale)
    assert_state(base.backbone, before | {name: before[name] + scale * tensor for name, tensor in delta.items()})


def test_two_deltas_one_after_another(base: Base, tmp_path: Path) -> None:
    first, second, before = random_delta(base.backbone, 0), random_delta(base.backbone, 1), state(base.backbone)
    paths = [write(tmp_path / str(i), base.backbone, delta) for i, delta in enumerate((first, second))]
    for path in paths:
        put_delta(base.backbone, read(path), 1.0)
    assert_state(base.backbone, before | {name: before[name] + first[name] + second[name] for name in first})


def test_a_delta_fits_the_base_loaded_in_half_precision(base: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "d", base.backbone, random_delta(base.backbone, 0))
    half = deepcopy(base.backbone).half()
    put_delta(half, read(path), 1.0)
    put_delta(base.backbone, read(path), 1.0)
    expected = dict(base.backbone.named_parameters())
    for name, weight in half.named_parameters():
        torch.testing.assert_close(weight.float(), expected[name], atol=1e-3, rtol=1e-3)


def test_another_base_is_refused_and_left_alone(base: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "d", base.backbone, random_delta(base.backbone, 0))
    last = max(random_delta(base.backbone, 0))  # the tensors before it are the delta's own base
    other = deepcopy(base.backbone)
    with torch.no_grad():
        other.get_parameter(last)[0, 0] += 1
    before = state(other)
    with pytest.raises(ArtifactError, match=rf"made from another base: tensor '{last}' is not the one of tiny"):
        put_delta(other, read(path), 1.0)
    assert_state(other, before)


def test_a_base_without_the_tensors_is_refused(base: Base, tmp_path: Path) -> None:
    path = write(tmp_path / "d", base.backbone, random_delta(base.backbone, 0))
    with pytest.raises(ArtifactError, match="this model has no tensor"):
        put_delta(nn.Linear(2, 2), read(path), 1.0)


def test_a_delta_that_names_no_base_is_refused(base: Base, tmp_path: Path) -> None:
    path, before = tmp_path / "d", state(base.backbone)
    path.write_bytes(to_bytes(random_delta(base.backbone, 0), {}))
    with pytest.raises(ArtifactError, match="another base"):
        put_delta(base.backbone, read(path), 1.0)
    assert_state(base.backbone, before)


def test_a_tensor_of_another_shape_is_refused(base: Base, tmp_path: Path) -> None:
    delta, before = random_delta(base.backbone, 0), state(base.backbone)
    last = max(delta)
    path = write(tmp_path / "d", base.backbone, delta | {last: torch.ones(1)})
    with pytest.raises(ArtifactError, match="another shape"):
        put_delta(base.backbone, read(path), 1.0)
    assert_state(base.backbone, before)


# --- all the way


@torch.no_grad()
def predict(unet: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return unet(inputs["x"], inputs["t"], encoder_hidden_states=inputs["e"]).sample


def test_a_pipeline_is_left_as_it_was(tiny_base: Path, concept: Concept) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)

    def anatomy() -> list[tuple]:
        modules = [(name, type(module)) for name, module in pipeline.unet.named_modules()]
        parts = (pipeline.unet, pipeline.text_encoder, pipeline.vae)
        return modules + [(n, p.requires_grad) for part in parts for n, p in part.named_parameters()]

    before, weights = anatomy(), state(pipeline.unet)
    advanchor.erase(pipeline, concept, QUICK)
    assert anatomy() == before
    assert_state(pipeline.unet, weights)


CHILD = """
import sys
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from advanchor import apply

folder, erased, inputs, output = sys.argv[1:]
pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
apply(pipeline, erased)
given = load_file(inputs)
eps = pipeline.unet(given["x"], given["t"], encoder_hidden_states=given["e"]).sample
save_file({"eps": eps.detach()}, output)
"""


def predicted_by_a_stock_pipeline(folder: Path, erased: Path, inputs: dict[str, Tensor], work: Path) -> Tensor:
    """In a fresh process that knows diffusers, safetensors and `advanchor.apply`."""
    save_file(inputs, work / "inputs")
    arguments = [folder, erased, work / "inputs", work / "output"]
    subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], check=True)
    return load_file(work / "output")["eps"]


def predicted_by_the_student(base: Base, changes: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
    delta = Delta(base.backbone, "cross_attention")
    with torch.no_grad():
        for name, parameter in delta.named_parameters().items():
            parameter.copy_(changes[name])
    with delta.on():
        return predict(base.backbone, inputs)


@pytest.mark.slow
def test_a_stock_pipeline_in_a_fresh_process_becomes_the_student(
    base: Base, concept: Concept, tiny_base: Path, tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"trained_weights": "cross_attention"})  # with its biases
    erased = advanchor.erase(base.pipeline, concept, settings)
    path = erased.save(tmp_path / "erased")
    assert [path] == files_of(tmp_path / "erased") and (tmp_path / "erased" / "anchor.safetensors").is_file()
    e_c = base.encode([concept.name, "a star"]).prompt_embeds.detach()
    inputs = {"x": torch.randn(2, 4, 8, 8), "t": torch.tensor([3, 700]), "e": e_c}
    eps = predicted_by_a_stock_pipeline(tiny_base, tmp_path / "erased", inputs, tmp_path)
    assert (eps - predict(base.backbone, inputs)).abs().max() > 1e-3
    student = predicted_by_the_student(base, erased.erasure.delta, inputs)
    torch.testing.assert_close(eps, student, atol=1e-5, rtol=1e-5)


def test_saving_twice_gives_the_same_bytes(base: Base, concept: Concept, tmp_path: Path) -> None:
    for name in ("first", "second"):
        advanchor.erase(base.pipeline, concept, QUICK, seed=4).save(tmp_path / name)
    for file in ("delta.safetensors", "anchor.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    metadata = read_metadata(tmp_path / "first" / "delta.safetensors")
    assert metadata["concept"]["name"] == "Mira Vos" and metadata["seed"] == 4


def test_a_folder_without_a_delta_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        files_of(tmp_path)


def test_the_tiny_pipeline_is_one_that_stock_diffusers_runs(tiny_base: Path) -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a red star", num_inference_steps=2).images[0].size == (32, 32)
