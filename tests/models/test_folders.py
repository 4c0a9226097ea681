"""Model folders that are whole, that have other forms of weights, and that are broken."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch

from advanchor import models
from advanchor.models.folders import trained_weights


@pytest.fixture(scope="module")
def sd3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd3") / "whole"
    tiny.BUILD["sd3_without_t5"]().save_pretrained(folder)
    return folder


@pytest.fixture
def copied(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "copied"))


def test_sd3_without_t5_comes_from_its_folder(sd3_folder: Path) -> None:
    base = models.load(str(sd3_folder))
    assert base.trained_weights == trained_weights(sd3_folder) == ["readers", "text_kv", "pooled"]
    assert [encoder.part for encoder in base.encoders] == ["text_encoder", "text_encoder_2"]
    assert base.encode(["a red star"]).prompt_embeds.shape == (1, 77 + 1, 384)  # 256 zero rows as one


def test_a_folder_says_what_can_be_trained_without_being_loaded(tiny_base: Path) -> None:
    assert trained_weights(tiny_base) == models.load(str(tiny_base)).trained_weights


def test_weights_of_a_variant_and_in_shards_are_the_same_base(tiny_base: Path, tmp_path: Path) -> None:
    pipeline = models.load(str(tiny_base)).pipeline
    pipeline.save_pretrained(tmp_path / "fp16", variant="fp16")
    pipeline.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert list((tmp_path / "shards" / "unet").glob("*-00002-of-*.safetensors"))
    wanted = pipeline.unet.state_dict()
    for form in ("fp16", "shards"):
        found = models.load(str(tmp_path / form)).backbone.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_weights_are_loaded_in_the_dtype_that_is_asked_for(tiny_base: Path) -> None:
    base = models.load(str(tiny_base), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in base.backbone.parameters()} == {torch.bfloat16}
    with pytest.raises(models.ModelError, match=r"torch.int64; choices: float32, bfloat16, float16"):
        models.load(str(tiny_base), dtype=torch.int64)


def test_a_pickle_is_refused_even_behind_an_index(copied: Path) -> None:
    index = copied / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "evil.bin"}}))
    with pytest.raises(models.ModelError, match=r"names 'evil.bin': only .safetensors"):
        models.load(str(copied))


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "scheduler", "vae"])
def test_a_folder_without_a_part_names_it(copied: Path, part: str) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(models.ModelError, match=rf"has no {part}/"):
        models.load(str(copied))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("unet/diffusion_pytorch_model.safetensors", b"no tensors"),
        ("unet/config.json", b"{"),
        ("model_index.json", b"[]"),
        ("scheduler/scheduler_config.json", b"{"),
    ],
)
def test_a_broken_file_is_one_line(copied: Path, path: str, content: bytes) -> None:
    (copied / path).write_bytes(content)
    with pytest.raises(models.ModelError) as caught:
        models.load(str(copied))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_its_vocabulary_is_refused(copied: Path) -> None:
    for path in (copied / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(models.ModelError, match="tokenizer"):
        models.load(str(copied))


def test_another_pipeline_names_the_supported_ones(copied: Path) -> None:
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": "DiTPipeline"}))
    with pytest.raises(models.ModelError, match=r"is a DiTPipeline; supported are StableDiffusionPipeline, .*FluxPipe"):
        models.load(str(copied))
