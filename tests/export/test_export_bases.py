"""Every base's edit as other tools load it: LoRAs by diffusers' loaders, merged models by its pipelines."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file

from advanchor.export import names, verify, write
from advanchor.export.lora import ExportError, decompose, kohya, peft
from advanchor.models.base import Base
from advanchor.models.readers import linear_names

PROMPTS = ["a red star in the style of Van Gogh", "painting by Mona Lisa of a dog"]
LORA = [name for name in tiny.BUILD if name not in ("sd3_without_t5", "flux_schnell", "flux2_dev", "pixart")]
KOHYA = [("sdxl", "readers"), ("flux_dev", "text_kv"), ("flux2_klein", "readers"), ("flux2_klein", "text_kv")]
KOHYA += [("qwen_image", "readers"), ("qwen_image", "text_kv"), ("z_image", "readers"), ("z_image", "text_kv")]
NOT_KOHYA = {"sd35": "no loader is known", "sana": "no loader is known", "flux_dev": "diffusers drops kohya's names"}


def edit(base: Base, trained_weights: str) -> dict[str, torch.Tensor]:
    """A delta of rank 4 that is as long as its weight."""
    found: dict[str, torch.Tensor] = {}
    for number, name in enumerate(linear_names(base.backbone, trained_weights)):
        weight = base.backbone.get_parameter(f"{name}.weight")
        generator = torch.Generator().manual_seed(number)
        left, right = (torch.randn(size, generator=generator) for size in ((len(weight), 4), (4, weight.shape[1])))
        dw = left @ right
        found[f"{name}.weight"] = dw * float(weight.norm() / dw.norm())
    return found


def loaded_error(base: Base, delta: dict[str, torch.Tensor], tensors: dict[str, Any], path: Path) -> float:
    save_file(tensors, path)
    return verify.error_of(base, delta, path, "lora", PROMPTS)


@pytest.mark.parametrize("name", LORA)
def test_a_lora_of_the_readers_loads_whole(name: str, tmp_path: Path) -> None:
    base = tiny.base_of(name)
    delta = edit(base, "readers")
    lora = decompose(delta, write.own_grams(base, list(delta), PROMPTS), 1e-3)
    tensors = peft(lora.layers, base.backbone_name)
    assert loaded_error(base, delta, tensors, tmp_path / "edit.safetensors") < 1e-3


@pytest.mark.parametrize(("name", "trained_weights"), KOHYA)
def test_kohya_s_names_are_converted(name: str, trained_weights: str, tmp_path: Path) -> None:
    base = tiny.base_of(name)
    delta = edit(base, trained_weights)
    lora = decompose(delta, write.own_grams(base, list(delta), PROMPTS), 1e-3)
    tensors = kohya(names.kohya(base.backbone, lora.layers))
    assert loaded_error(base, delta, tensors, tmp_path / "edit.safetensors") < 1e-3


@pytest.mark.parametrize("name", NOT_KOHYA)
def test_what_no_loader_reads_is_refused(name: str) -> None:
    base = tiny.base_of(name)
    layers = decompose(edit(base, "readers"), {}, 1e-3).layers
    with pytest.raises(ExportError, match=NOT_KOHYA[name]):
        names.kohya(base.backbone, layers)


def test_where_diffusers_loads_no_lora_the_whole_pipeline_is_the_way() -> None:
    with pytest.raises(ExportError, match="loads no LoRA into a PixArtSigmaPipeline: use --format diffusers"):
        write.write_lora(tiny.base_of("pixart"), *[None] * 5)  # type: ignore[arg-type] # told before anything is read
