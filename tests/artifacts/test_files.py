"""Erasures as files: the same bytes for the same numbers, on the base that they were made from and on no other."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from advanchor.artifacts import (
    FORMAT,
    METADATA_KEY,
    ArtifactError,
    from_bytes,
    read_metadata,
    sha256,
    to_bytes,
)
from advanchor.artifacts.files import CONTENT, content_digest, read_checked

TENSORS = {"b": torch.arange(6.0).view(2, 3).t(), "a": torch.tensor([1.5]), "c": torch.ones(2, dtype=torch.float16)}
METADATA = {"concept": {"name": '\N{SNOWMAN} "quoted"'}, "seed": 3, "list": [1, 2.5, None]}


def test_packing_gives_the_same_bytes_in_any_order() -> None:
    backwards = dict(reversed(TENSORS.items())), dict(reversed(METADATA.items()))
    assert len({to_bytes(TENSORS, METADATA), *(to_bytes(*backwards) for _ in range(5))}) == 1


def test_unpacking_gives_back_what_was_packed() -> None:
    tensors, metadata = from_bytes(to_bytes(TENSORS, METADATA), "here")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], v) and tensors[k].dtype == v.dtype for k, v in TENSORS.items())
    assert metadata == {"format": FORMAT, **METADATA, CONTENT: content_digest(TENSORS, {"format": FORMAT, **METADATA})}


def test_metadata_is_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "delta.safetensors"
    path.write_bytes(to_bytes(TENSORS, METADATA))
    assert {key: value for key, value in read_metadata(path).items() if key != CONTENT} == {
        "format": FORMAT,
        **METADATA,
    }


def keyed(value: object) -> bytes:
    return save(TENSORS | {"b": torch.ones(1)}, {METADATA_KEY: json.dumps(value)})


FOREIGN = {
    "empty": b"",
    "garbage": b"not a safetensors file at all, whatever its name says",
    "half": to_bytes(TENSORS, METADATA)[:-3],
    "another program's": save({"a": torch.ones(1)}, {"made_by": "somebody"}),
    "without metadata": save({"a": torch.ones(1)}),
    "no JSON": save({"a": torch.ones(1)}, {METADATA_KEY: "{"}),
    "no mapping": keyed([1]),
    "no format": keyed({"seed": 1}),
    "a later format": keyed({"format": FORMAT + 1}),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ArtifactError, match=r"here\.safetensors"):
        from_bytes(FOREIGN[kind], "here.safetensors")


@pytest.mark.parametrize("kind", ["empty", "garbage", "another program's", "without metadata", "no JSON"])
def test_a_foreign_files_metadata_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(ArtifactError, match=r"x\.safetensors"):
        read_metadata(path)


def test_every_byte_that_says_something_is_checked() -> None:
    """A flipped bit anywhere is refused: in a tensor, in a name, in the metadata."""
    data = to_bytes(TENSORS, METADATA)
    accepted = []
    for position in range(8, len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1
        try:
            from_bytes(bytes(flipped), "here")
        except ArtifactError:
            continue
        accepted.append(position)
    header = 8 + int.from_bytes(data[:8], "little")
    assert all(position < header and data[position] in b' "' for position in accepted)  # padding of the header
    assert len(accepted) <= 8


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_neither_written_nor_read(value: float) -> None:
    tensors = {"a": torch.tensor([1.0, value])}
    with pytest.raises(ArtifactError, match="'a' has values that are not finite"):
        to_bytes(tensors, {})
    metadata: dict = {"format": FORMAT}
    metadata[CONTENT] = content_digest(tensors, metadata)
    with pytest.raises(ArtifactError, match="'a' has values that are not finite"):
        from_bytes(save(tensors, {METADATA_KEY: json.dumps(metadata)}), "here")


def test_a_file_is_compared_with_its_name_and_with_the_result_beside_it(tmp_path: Path) -> None:
    data = to_bytes(TENSORS, METADATA)
    path = tmp_path / f"delta-{sha256(data)[:16]}.safetensors"
    path.write_bytes(data)
    assert read_checked(path) == data
    other = to_bytes(TENSORS, {"seed": 4})  # a sound file, but not this one
    path.write_bytes(other)
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
        read_checked(path)
    plain = tmp_path / "delta.safetensors"
    plain.write_bytes(other)
    assert read_checked(plain) == other
    for index, entry in (
        ("fused.json", {"delta.safetensors": {"sha256": sha256(data), "bytes": 1}}),
        ("result.json", {"delta": {"name": "delta.safetensors", "sha256": sha256(data)}}),
    ):
        (tmp_path / index).write_text(json.dumps({"files": entry}))
        with pytest.raises(ArtifactError, match="is damaged"):
            read_checked(plain)
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"result\.json is damaged"):
        read_checked(plain)
