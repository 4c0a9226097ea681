"""Digests of large files are kept, and never trusted once a file may have changed."""

import json
import os
from pathlib import Path

import pytest

from advanchor.models import digests
from advanchor.models.digests import file_digest, hashed

OLD = 1_000_000_000  # seconds; ctime cannot be set, so a test waits for nothing and settles for SETTLED_S = 0


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVANCHOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 4)
    monkeypatch.setattr("advanchor.models.cache.SETTLED_S", 0.0)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"0123456789")
    return path


def entry(weights: Path) -> Path:
    (found,) = (weights.parent / "cache" / "digests").glob("*.json")
    return found


def forge(weights: Path, **changed: object) -> None:
    path = entry(weights)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "f" * 64} | changed))


def test_a_digest_is_kept_for_a_file_that_is_as_it_was(weights: Path) -> None:
    assert file_digest(weights) == hashed(weights)
    forge(weights)
    assert file_digest(weights) == "f" * 64  # nothing was read


def written_again(path: Path) -> None:
    """Another content of the same size, with the same time of modification."""
    times = path.stat()
    path.write_bytes(b"9876543210")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(b"9876543210")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    "change", [written_again, replaced, lambda path: path.write_bytes(b"0"), lambda path: os.utime(path, (OLD, OLD))]
)
def test_a_file_that_may_have_changed_is_read_again(change: object, weights: Path) -> None:
    file_digest(weights)
    forge(weights)
    change(weights)  # type: ignore[operator]
    assert file_digest(weights) == hashed(weights)


@pytest.mark.parametrize("key", ["path", "device", "inode", "bytes", "modified_ns", "changed_ns"])
def test_every_fact_counts(key: str, weights: Path) -> None:
    file_digest(weights)
    forge(weights, **{key: 1})
    assert file_digest(weights) == hashed(weights)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"sha256": 7}'])
def test_a_damaged_entry_is_ignored_and_mended(content: bytes, weights: Path) -> None:
    file_digest(weights)
    entry(weights).write_bytes(content)
    assert file_digest(weights) == hashed(weights)
    assert json.loads(entry(weights).read_text())["sha256"] == hashed(weights)


def test_a_digest_of_another_form_is_ignored(weights: Path) -> None:
    file_digest(weights)
    forge(weights, sha256="../../f")
    assert file_digest(weights) == hashed(weights)


def test_what_was_written_just_now_is_not_kept(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advanchor.models.cache.SETTLED_S", 1e9)
    file_digest(weights)
    assert not (weights.parent / "cache").exists()


def test_no_cache_and_small_files_leave_nothing(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "LARGE", 11)
    file_digest(weights)
    monkeypatch.setattr(digests, "LARGE", 4)
    monkeypatch.setenv("ADVANCHOR_CACHE", "off")
    file_digest(weights)
    assert not (weights.parent / "cache").exists()


def test_a_cache_that_cannot_be_written_does_no_harm(weights: Path) -> None:
    (weights.parent / "cache").write_text("a file in its place")
    assert file_digest(weights) == hashed(weights)
