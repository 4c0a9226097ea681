"""Fusing at Stable Diffusion 1.4's sizes: time, memory and the disk's rate, with random numbers of the right shapes."""

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advanchor.artifacts import sha256, to_bytes, views
from advanchor.concepts import Concept
from advanchor.fusion import ways
from advanchor.fusion.member import Member
from advanchor.fusion.sources import read_ahead
from advanchor.fusion.statistics import GRAM, accumulate, anchor_statistics
from advanchor.training.projection import gram

D, LENGTH, TEMPLATES = 768, 77, 2
BLOCKS = {320: 5, 640: 5, 1280: 6}  # width of an attention layer -> how many of them; each has to_k and to_v
CHUNK = 16 * 1024 * 1024  # bytes per read of the plain reading that fusing is compared with
RIDGE = ways.FusionSettings().ridge


def projections() -> dict[str, tuple[int, int]]:
    """Shapes (d_out, D) of all 32 projections."""
    widths = [width for width, count in BLOCKS.items() for _ in range(count)]
    return {f"{i}.attn2.{leaf}.weight": (width, D) for i, width in enumerate(widths) for leaf in ("to_k", "to_v")}


def random_embeds(generator: torch.Generator) -> Tensor:
    return torch.randn(TEMPLATES, LENGTH, D, generator=generator)


def write_statistics(folder: Path, count: int) -> list[Member]:
    """Statistics files of `count` random concepts, as members of a fusion; what is there already is used again."""
    members = []
    for i in range(count):
        path = folder / f"statistics-{i}.safetensors"
        if not path.is_file():
            generator = torch.Generator().manual_seed(i)
            tensors = {name: torch.randn(shape, generator=generator) for name, shape in projections().items()}
            path.write_bytes(to_bytes(tensors | {GRAM: gram(random_embeds(generator)).float()}, {"number": i}))
        concept = Concept(name=f"concept {i}", kind="object")
        digest = sha256(path.read_bytes())
        facts = {"task": str(i), "method": {}, "base": "random", "base_digest": ""}
        members.append(Member(concept=concept, run=str(folder), path=path.name, sha256=digest, **facts))
    return members


def evict(members: Sequence[Member]) -> None:
    """Drop the files from the page cache, so that they are read from the disk."""
    for member in members:
        with (Path(member.run) / member.path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(members: Sequence[Member]) -> float:
    """Seconds that reading the files one after another takes, with nothing done to what is read."""
    evict(members)
    buffer, started = bytearray(CHUNK), time.perf_counter()
    for member in members:
        with (Path(member.run) / member.path).open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started


def constraints(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The Gram matrix of 40 random retained prompts, and a first position."""
    retained = sum((gram(random_embeds(generator)) for _ in range(20)), torch.zeros(D, D, dtype=torch.float64))
    return retained, torch.randn(D, 1, generator=generator)


def closed_form(members: Sequence[Member], count: int) -> dict[str, Any]:
    """Fuse `count` concepts from files that are read from the disk every time, `members` over and over.

    Before each time they are read plainly, as rates of disks change from one moment to the next.
    """
    totals: dict[str, Tensor] = {}
    retained, first = constraints(torch.Generator().manual_seed(1))
    done = total = 0
    reading = summing = 0.0
    while done < count:
        part = members[: count - done]
        reading += read_plainly(part)
        evict(part)
        started = time.perf_counter()
        for member, data in read_ahead(part):
            accumulate(totals, views(data, member.path))
            total += len(data)
        summing += time.perf_counter() - started
        done += len(part)
    started = time.perf_counter()
    ways.closed_form.closed_form(totals, retained, first, RIDGE)
    solving = time.perf_counter() - started
    return {
        "method": "closed_form", "concepts": count, "seconds": summing + solving, "solving_s": solving,
        "bytes_per_s": total / summing, "disk_bytes_per_s": total / reading, "share_of_disk": reading / summing,
    }  # fmt: skip


def anchor_edit(count: int) -> dict[str, Any]:
    """Edit towards `count` anchors whose embeddings are at hand (encoding the prompts is the text encoder's time)."""
    generator = torch.Generator().manual_seed(2)
    base = {name: torch.randn(shape, generator=generator) for name, shape in projections().items()}
    pairs = [(random_embeds(generator), random_embeds(generator)) for _ in range(8)]
    retained, first = constraints(generator)
    totals: dict[str, Tensor] = {}
    started = time.perf_counter()
    for i in range(count):
        accumulate(totals, anchor_statistics(*pairs[i % len(pairs)]))
    ways.anchor_edit.anchor_edit(totals, retained, first, RIDGE, base)
    return {"method": "anchor_edit", "concepts": count, "seconds": time.perf_counter() - started}


def run(folder: Path, files: int, counts: Sequence[int]) -> dict[str, Any]:
    """Both methods at all counts; `files` statistics of 79 MB each are written to `folder` first."""
    folder.mkdir(parents=True, exist_ok=True)
    members = write_statistics(folder, files)
    rows = [closed_form(members, count) for count in counts]
    rows += [anchor_edit(count) for count in counts]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"threads": torch.get_num_threads(), "peak_memory_bytes": peak, "rows": rows}
