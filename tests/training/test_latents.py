"""Sampled latents are kept by the hash of what decides their bits, and come back bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from advanchor.models.text import Prompt
from advanchor.training.context import Context
from advanchor.training.latents import LatentCache, default_cache, teacher_latents

FACTS = {"seed": 1, "prompts": ["a star"]}


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    return LatentCache(tmp_path / "latents")


@contextmanager
def forwards(context: Context) -> Iterator[list[int]]:
    rows: list[int] = []
    handle = context.base.backbone.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    yield rows
    handle.remove()


def latents(context: Context, cache: LatentCache | None, **changes: Any) -> torch.Tensor:
    arguments: dict[str, Any] = {"prompts": [Prompt("a star")], "seed": 0, "num_latents": 3, "num_steps": 2}
    arguments |= {"guidance": 3.0} | changes
    prompts, seed = arguments.pop("prompts"), arguments.pop("seed")
    return teacher_latents(context.base, context.engine, prompts, seed, cache=cache, **arguments)


def test_cached_or_not_the_bits_are_the_same(context: Context, cache: LatentCache) -> None:
    fresh = latents(context, None)
    first = latents(context, cache)
    with forwards(context) as rows:
        second = latents(context, LatentCache(cache.folder))  # as another run would
    assert not rows
    assert torch.equal(first, fresh) and torch.equal(second, fresh)


@pytest.mark.parametrize(
    "changes",
    [{"prompts": [Prompt("a ring")]}, {"seed": 1}, {"num_latents": 2}, {"num_steps": 3}, {"guidance": 2.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_decides_the_bits_is_in_the_key(context: Context, cache: LatentCache, changes: dict[str, Any]) -> None:
    latents(context, cache)
    with forwards(context) as rows:
        changed = latents(context, cache, **changes)
    assert rows and torch.equal(changed, latents(context, None, **changes))
    context.base.digest = "of another base"
    with forwards(context) as rows:
        latents(context, cache)
    assert rows


def test_a_damaged_entry_is_sampled_again(context: Context, cache: LatentCache) -> None:
    first = latents(context, cache)
    (entry,) = cache.folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:-7])
    assert torch.equal(latents(context, cache), first)
    with forwards(context) as rows:
        latents(context, cache)
    assert not rows


def test_a_folder_that_cannot_be_written_to_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = LatentCache(tmp_path / "file" / "latents")
    cache.put(FACTS, torch.ones(2))
    assert cache.get(FACTS) is None


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_cache() is None  # tests switch it off
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ADVANCHOR_CACHE")
    found = default_cache()
    assert found is not None and found.folder == tmp_path / "advanchor" / "latents"
    monkeypatch.setenv("ADVANCHOR_CACHE", str(tmp_path / "elsewhere"))
    found = default_cache()
    assert found is not None and found.folder == tmp_path / "elsewhere"
