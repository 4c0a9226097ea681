"""A folder of erasures goes on and comes off whole; a failure leaves the model as it was."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_erasures import delta_of, load, neurons_of, same, state

import advanchor
from advanchor.artifacts import ArtifactError, record, to_bytes
from advanchor.artifacts.files import BASE_TENSORS


def folder_of(pipeline: Any, folder: Path) -> Path:
    folder.mkdir()
    delta_of(pipeline, folder / "delta.safetensors", 0)
    neurons_of(pipeline, folder / "neurons.safetensors")
    return folder


def misshapen(path: Path) -> None:
    tensors, metadata = (lambda f: (f.tensors, f.metadata))(record.read(path))
    grown = {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()}
    path.write_bytes(to_bytes(grown, {BASE_TENSORS: metadata[BASE_TENSORS]}))


SPOILED: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "of another base": lambda path: path.write_bytes(to_bytes(record.read(path).tensors, {})),
    "misshapen": misshapen,
    "empty": lambda path: path.write_bytes(to_bytes({}, {})),
}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("which", ["delta.safetensors", "neurons.safetensors"])
def test_a_folder_goes_on_whole_or_not_at_all(pipeline: Any, tmp_path: Path, which: str, how: str) -> None:
    folder, before = folder_of(pipeline, tmp_path / "fused"), state(pipeline)
    SPOILED[how](folder / which)
    with pytest.raises(ArtifactError, match=which):
        advanchor.apply(pipeline, folder)
    assert same(state(pipeline), before) and pipeline.text_encoder.config.intermediate_size == 64
    for module in (pipeline.unet, pipeline.text_encoder):
        assert record.layers_of(module) == []


def test_a_failure_in_the_middle_takes_off_what_is_on(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = folder_of(pipeline, tmp_path / "fused"), state(pipeline)
    delta = record.read(folder / "delta.safetensors")
    tensors = {name: 3e38 * torch.ones_like(tensor) for name, tensor in delta.tensors.items()}
    (folder / "delta.safetensors").write_bytes(to_bytes(tensors, {BASE_TENSORS: delta.metadata[BASE_TENSORS]}))
    monkeypatch.setattr(
        "advanchor.api.files_of", lambda path: [path / f"{n}.safetensors" for n in ("neurons", "delta")]
    )
    with pytest.raises(ArtifactError, match=r"at scale 2 .* not finite"):
        advanchor.apply(pipeline, folder, 2)
    assert same(state(pipeline), before)


def test_a_folder_comes_off_whole_and_bit_for_bit(pipeline: Any, tmp_path: Path) -> None:
    folder, before = folder_of(pipeline, tmp_path / "fused"), state(pipeline)
    more = neurons_of(pipeline, tmp_path / "more", 7, 6)
    advanchor.apply(pipeline, folder)
    advanchor.apply(pipeline, more)
    advanchor.remove(pipeline, folder)  # cut out from under the later ones
    assert pipeline.text_encoder.config.intermediate_size == 70
    advanchor.remove(pipeline, more)
    assert same(state(pipeline), before)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf"), "1", None, True])
def test_a_scale_is_a_finite_number(pipeline: Any, tmp_path: Path, scale: Any) -> None:
    path, before = delta_of(pipeline, tmp_path / "d", 0), state(pipeline)
    with pytest.raises(ArtifactError, match="is not a finite number"):
        advanchor.apply(pipeline, path, scale)
    assert same(state(pipeline), before)


def test_a_sum_that_is_not_finite_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    path, pipeline = delta_of(load(tiny_base), tmp_path / "d", 0), load(tiny_base, torch.float16)
    before = state(pipeline)
    with pytest.raises(ArtifactError, match=r"at scale 1e\+06 .* not finite"):
        advanchor.apply(pipeline, path, 1e6)
    assert same(state(pipeline), before)


def test_memory_for_undoing_is_bounded(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "UNDO_BYTES", 1)
    paths = [delta_of(pipeline, tmp_path / f"{n}", n) for n in range(4)]
    stock = state(pipeline)
    for path in paths:
        advanchor.apply(pipeline, path)
    assert [bool(layer.undo) for layer in record.layers_of(pipeline.unet)] == [True, False, False, False]
    for path in reversed(paths):
        advanchor.remove(pipeline, path)
    assert same(state(pipeline), stock)


def test_a_copy_of_a_model_knows_what_is_on_it(pipeline: Any, tmp_path: Path) -> None:
    path = delta_of(pipeline, tmp_path / "d", 0)
    stock = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    advanchor.apply(pipeline, path)
    copy = deepcopy(pipeline.unet)
    record.take_off(copy, record.read(path))
    assert all(torch.equal(tensor, stock[name]) for name, tensor in copy.state_dict().items())
    advanchor.remove(pipeline, path)


def test_a_damaged_record_is_named(pipeline: Any, tmp_path: Path) -> None:
    path = delta_of(pipeline, tmp_path / "d", 0)
    pipeline.save_pretrained(tmp_path / "saved")
    config = tmp_path / "saved" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {record.RECORD: {"layers": [7]}}))
    with pytest.raises(ArtifactError, match="damaged _advanchor"):
        advanchor.apply(load(tmp_path / "saved"), path)


def test_a_whole_erasure_and_back(tiny_base: Path, concept: advanchor.Concept, tmp_path: Path) -> None:
    """erase, apply, erase, apply on one pipeline, then both off again."""
    import quick

    pipeline = load(tiny_base)
    stock = state(pipeline)
    paths = []
    for number in range(2):
        erased = advanchor.erase(pipeline, concept, quick.SETTINGS["fixed_anchor"], seed=number)
        paths.append(erased.save(tmp_path / f"{number}"))
        advanchor.apply(pipeline, paths[-1])
    for path in reversed(paths):
        advanchor.remove(pipeline, path)
    assert same(state(pipeline), stock)
