"""Checkpoints in one file, and LoRAs that are in the weights before anything is erased."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fusing
import pytest
import single
import tiny
import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
)
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from advanchor import apply, models
from advanchor.batch.file import parse_batch
from advanchor.batch.plan import plan
from advanchor.batch.problems import problems
from advanchor.batch.spec import BatchError
from advanchor.bench import shapes
from advanchor.export import original, original_mmdit
from advanchor.export.card import card
from advanchor.export.lora import ExportError
from advanchor.export.sources import sources
from advanchor.models.base import Base

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def checkpoint(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tiny Stable Diffusion in one file, and its configuration without weights."""
    folder = tmp_path_factory.mktemp("single")
    pipeline = models.load(str(tiny_base)).pipeline
    return {
        "single_file": str(single.save(pipeline, folder / "tiny.safetensors")),
        "config": str(single.configuration(pipeline, folder / "config")),
    }


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora(tmp_path_factory.mktemp("lora") / "ink.safetensors", f"unet.{KEY}", "lora_A", "lora_B")


def save_lora(path: Path, key: str, down: str, up: str, **more: Tensor) -> Path:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(shape, generator=generator) / 4 for shape in ((2, 32), (16, 2)))
    save_file({f"{key}.{down}.weight": a, f"{key}.{up}.weight": b, **more}, path)
    return path


def change(path: Path) -> Tensor:
    a, b = sorted((t for t in load_file(path).values() if t.ndim), key=lambda tensor: tensor.shape[0])
    return b @ a


def same_weights(one: Base, other: Base) -> bool:
    ours, theirs = ([module.state_dict() for module in base.modules().values()] for base in (one, other))
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_a_checkpoint_is_the_pipeline_that_it_was_made_from(checkpoint: dict[str, str], tiny_base: Path) -> None:
    base = models.load(json.dumps(checkpoint))
    assert same_weights(base, models.load(str(tiny_base)))
    assert base.made_of["single_file"]["name"] == "tiny.safetensors"


@pytest.mark.parametrize("name", ["sdxl", "sd35", "sd3_without_t5"])
def test_others_come_from_one_file_with_all_encoders(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipeline = tiny.BUILD[name]()
    if name != "sdxl":  # whose files have no projection of the first CLIP
        torch.nn.init.eye_(pipeline.text_encoder.text_projection.weight)
    model = {
        "single_file": str(single.save(pipeline, tmp_path / "one.safetensors")),
        "config": str(single.configuration(pipeline, tmp_path / "config")),
    }
    assert same_weights(models.load(json.dumps(model)), models.of_pipeline(pipeline, name=name, digest=name))


def test_a_projection_that_the_file_cannot_carry_is_refused() -> None:
    with pytest.raises(ExportError, match="carries no text_projection of text_encoder"):
        original.checkpoint(tiny.BUILD["sd3_without_t5"]())


def test_flux_s_names_are_those_that_diffusers_reads() -> None:
    """Its conversion has the width 3072 written in: of the published shapes a column of each matrix is enough."""
    with torch.device("meta"):
        whole = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(tensor.shape[0], *[1] * (tensor.ndim - 1), generator=generator)
        for name, tensor in whole.state_dict().items()
    }
    transformer = SimpleNamespace(state_dict=lambda: state, transformer_blocks=[None], single_transformer_blocks=[None])
    found = convert_flux_transformer_checkpoint_to_diffusers(dict(original_mmdit.flux(transformer)))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["sd14", "sdxl"])
def test_published_unets_have_a_name_for_every_weight(name: str) -> None:
    with torch.device("meta"):
        unet: Any = shapes.unet(name)
    found = convert_ldm_unet_checkpoint(dict(original.unet_tensors(unet)), {**unet.config})
    assert {key: tensor.shape for key, tensor in found.items()} == {
        key: tensor.shape for key, tensor in unet.state_dict().items()
    }


def test_a_part_that_the_file_lacks_comes_from_the_configuration(
    checkpoint: dict[str, str], tiny_base: Path, tmp_path: Path
) -> None:
    tensors = load_file(checkpoint["single_file"])
    path = tmp_path / "bare.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("first_stage_model.")}, path)
    with pytest.raises(models.ModelError, match=r"does not hold the vae, and .* has no vae/\*.safetensors"):
        models.load(json.dumps({"single_file": str(path), "config": checkpoint["config"]}))
    assert same_weights(
        models.load(json.dumps({"single_file": str(path), "config": str(tiny_base)})), models.load(str(tiny_base))
    )


def test_a_checkpoint_is_told_by_its_content_and_its_configuration(checkpoint: dict[str, str], tmp_path: Path) -> None:
    def digest(**changed: str) -> str:
        return models.place_of(json.dumps(checkpoint | changed)).digest

    moved = shutil.copy(checkpoint["single_file"], tmp_path / "renamed.safetensors")
    assert digest() == digest(single_file=str(moved))
    tensors = load_file(moved)
    first = min(tensors)
    save_file(tensors | {first: tensors[first] + 1}, tmp_path / "other.safetensors")
    assert digest() != digest(single_file=str(tmp_path / "other.safetensors"))
    config = Path(shutil.copytree(checkpoint["config"], tmp_path / "config"))
    scheduler = config / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace('"beta_end": ', '"beta_end": 1'))
    assert digest() != digest(config=str(config))


REFUSED = {
    "a pickle": ({"single_file": "model.ckpt"}, r"single_file: 'model.ckpt' is a pickle, .*give the .safetensors"),
    "another file": ({"single_file": "model.gguf"}, r"'model.gguf' is not a .safetensors file"),
    "no file": ({"single_file": "none.safetensors", "config": "pocket"}, r"single_file 'none.safetensors' is not"),
    "an unknown key": ({"single_file": "a.safetensors", "vae": "b"}, r"model.vae: 'vae' is not one of single_f"),
    "a lora's pickle": ({"base": "pocket", "loras": [{"path": "a.bin"}]}, r"model.loras.0.path: 'a.bin' is a pickle"),
    "a lora without a file": ({"base": "pocket", "loras": [{}]}, r"model.loras.0.path: is missing"),
    "no loras": ({"base": "pocket", "loras": []}, r"model.loras: "),
    "a number": (7, r"model: "),
    "a plain pickle": ("FOLDER/x.ckpt", r"is a pickle, which can run anything"),
    "a plain file": ("FOLDER/x.safetensors", r"is a file: write model: {single_file: "),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused_says_why_in_one_line(row: str, tmp_path: Path) -> None:
    model, message = REFUSED[row]
    if isinstance(model, str):
        (tmp_path / model.removeprefix("FOLDER/")).write_bytes(b"")
        model = model.replace("FOLDER", str(tmp_path))
    text = json.dumps({"model": model, "concepts": [{"name": "star", "kind": "object"}]})
    with pytest.raises(BatchError, match=message) as caught:
        read = parse_batch(text, tmp_path / "batch.yaml")
        raise BatchError(read.located(problems(read.spec, read.concepts)))
    assert len(caught.value.problems) == 1, caught.value.problems


def test_a_file_of_no_tensors_is_one_line(checkpoint: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"no tensors")
    for model in (checkpoint | {"single_file": str(path)}, {"base": "pocket", "loras": [{"path": str(path)}]}):
        with pytest.raises(models.ModelError, match=r"is no whole .safetensors file") as caught:
            models.load(json.dumps(model))
        assert "\n" not in str(caught.value)


def test_a_file_with_a_tensor_missing_is_refused(checkpoint: dict[str, str], tmp_path: Path) -> None:
    tensors = load_file(checkpoint["single_file"])
    del tensors["model.diffusion_model.out.2.weight"]
    save_file(tensors, tmp_path / "short.safetensors")
    with pytest.raises(models.ModelError, match=r"lacks tensors that .*config asks for: another family"):
        models.load(json.dumps(checkpoint | {"single_file": str(tmp_path / "short.safetensors")}))


def test_a_checkpoint_without_configuration_says_what_to_give(
    checkpoint: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is not to be reached: nothing listens there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(models.ModelError, match=r"give `config` beside it, .* stable-diffusion-v1-5/") as caught:
        models.load(json.dumps({"single_file": checkpoint["single_file"]}))
    assert "\n" not in str(caught.value)


# --- LoRAs


def with_lora(base: Any, lora: Path, **settings: Any) -> str:
    return json.dumps({"base": base, "loras": [{"path": str(lora), **settings}]})


@pytest.mark.parametrize("form", ["PEFT", "kohya"])
def test_a_lora_is_in_the_weights_and_nowhere_else(form: str, lora: Path, tiny_base: Path, tmp_path: Path) -> None:
    if form == "kohya":
        name = f"lora_unet_{KEY.replace('.', '_')}"
        alpha = {f"{name}.alpha": torch.tensor(2.0)}  # the rank
        lora = save_lora(tmp_path / "ink.safetensors", name, "lora_down", "lora_up", **alpha)
    plain, fused = models.load(str(tiny_base)), models.load(with_lora(str(tiny_base), lora, scale=0.5))
    before, after = plain.backbone.state_dict(), fused.backbone.state_dict()
    assert before.keys() == after.keys()
    wanted = before[f"{KEY}.weight"] + 0.5 * change(lora)
    torch.testing.assert_close(after[f"{KEY}.weight"], wanted)
    assert all(torch.equal(before[name], after[name]) for name in before if name != f"{KEY}.weight")
    assert not any(parameter.requires_grad for parameter in fused.backbone.parameters())


def test_a_lora_s_content_and_scale_are_part_of_the_digest(lora: Path, tiny_base: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(lora, tmp_path / "moved.safetensors"))
    other = save_lora(tmp_path / "other.safetensors", f"unet.{KEY}", "lora_A", "lora_B", x=torch.ones(1))
    names = [str(tiny_base), *(with_lora(str(tiny_base), file) for file in (lora, other, moved))]
    plain, one, two, same = (models.place_of(name).digest for name in names)
    assert one == same and len({plain, one, two, models.place_of(with_lora(str(tiny_base), lora, scale=2)).digest}) == 4


@pytest.mark.parametrize(
    ("key", "message"),
    [("unet.nowhere.attn2.to_k", "ink.safetensors"), ("elsewhere", "ink.safetensors")],
)
def test_a_lora_of_another_base_is_refused(key: str, message: str, tiny_base: Path, tmp_path: Path) -> None:
    other = save_lora(tmp_path / "ink.safetensors", key, "lora_A", "lora_B")
    with pytest.raises(models.ModelError, match=message) as caught:
        models.load(with_lora(str(tiny_base), other))
    assert "\n" not in str(caught.value)


def test_a_file_without_low_rank_matrices_is_no_lora(tiny_base: Path, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "none.safetensors")
    with pytest.raises(models.ModelError, match="it is no LoRA"):
        models.load(with_lora(str(tiny_base), tmp_path / "none.safetensors"))


def test_what_is_erased_from_is_what_is_served(
    lora: Path, checkpoint: dict[str, str], tiny_base: Path, tmp_path: Path
) -> None:
    """From a checkpoint with a LoRA to a fused model: on the service's own pipeline, and nowhere else."""
    name = with_lora(checkpoint, lora)
    run = fusing.erase(name, tmp_path / "run", ("star", "circle"))  # type: ignore[arg-type]
    served = models.load(str(tiny_base)).pipeline
    served.load_lora_weights(str(lora.parent), weight_name=lora.name)
    served.fuse_lora()
    served.unload_lora_weights()
    task = next((Path(run) / "tasks").glob("star-*"))
    apply(served, task)
    with pytest.raises(ValueError, match="made from another base"):
        apply(models.load(str(tiny_base)).pipeline, task)

    result = json.loads((task / "result.json").read_text())
    sha256 = models.place_of(name).made_of["loras"][0]["sha256"]
    assert result["base_made_of"]["loras"] == [{"name": "ink.safetensors", "sha256": sha256, "scale": 1.0}]
    fused = fusing.made(run, models.load(name))
    assert fused.to_json({})["base_made_of"] == result["base_made_of"]
    assert sha256 in str(card(list(sources(run)), []))


def test_a_plan_keeps_the_mapping(lora: Path, tiny_base: Path, tmp_path: Path) -> None:
    model = {"base": str(tiny_base), "loras": [{"path": str(lora), "scale": 0.5}]}
    concepts = [{"name": "star", "kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}]
    read = parse_batch(json.dumps({"model": model, "concepts": concepts}), tmp_path / "batch.yaml")
    (task,) = plan(read.spec, read.concepts)
    assert json.loads(task.base) == model and read.spec.model_dump(mode="json")["model"] == model
