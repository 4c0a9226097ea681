"""Latents of a concept's images, sampled by the teacher, and kept on disk: no run need sample them twice."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from advanchor.models.base import Base
from advanchor.models.cache import SWITCH, user_cache
from advanchor.models.sampling import initial_noise, sample_latents
from advanchor.models.text import Prompt
from advanchor.training.engine import Engine, derived_seed, shard

AT_ONCE = 64  # images sampled together


class LatentCache:
    """One safetensors file per entry, named by the hash of everything that decides its bits.

    A file that is cut short or cannot be read counts as missing, and a folder that cannot be written to keeps nothing:
    a cache must never be why a task fails.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, facts: Mapping[str, Any]) -> Path:
        content = json.dumps(facts, sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()}.safetensors"

    def get(self, facts: Mapping[str, Any]) -> Tensor | None:
        """The latents (N, C, h, w) of these facts, on the CPU; None if they are not here."""
        with contextlib.suppress(OSError, SafetensorError, KeyError):
            return load_file(self.path(facts))["latents"]
        return None

    def put(self, facts: Mapping[str, Any], latents: Tensor) -> None:
        """Keep the latents; several processes may do so at once, since a file appears whole or not at all."""
        path = self.path(facts)
        part = path.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(save({"latents": latents.detach().cpu().contiguous()}))
            part.replace(path)


def default_cache() -> LatentCache | None:
    """The user's cache (XDG_CACHE_HOME, or ~/.cache); ADVANCHOR_CACHE names another folder, or is "off"."""
    choice, folder = os.environ.get(SWITCH, ""), user_cache("latents")
    return folder and LatentCache(Path(choice).expanduser() if choice else folder)


def teacher_latents(
    base: Base,
    engine: Engine,
    prompts: Sequence[Prompt],
    seed: int,
    *,
    num_latents: int,
    num_steps: int,
    guidance: float,
    cache: LatentCache | None = None,
) -> Tensor:
    """x_0 (num_latents, C, h, w): image i has prompt i modulo their number. Cached or not, the same bits."""
    facts = {
        "base": base.digest,
        "scheduler": base.scheduler_config,
        "shape": base.latent_shape,
        "prompts": [prompt.text for prompt in prompts],
        "seed": seed,
        "num_latents": num_latents,
        "num_steps": num_steps,
        "guidance": guidance,
        "solver": "dpm",
        **numerics(engine),
    }
    kept = cache.get(facts) if cache else None
    everywhere = engine.mean(torch.tensor(float(kept is not None), device=base.device)) == 1
    if kept is not None and everywhere:  # else all ranks sample: at ZeRO-3 none can do so alone
        return kept.to(base.device)
    sampled = sample(base, engine, prompts, seed, num_latents, num_steps, guidance)
    if cache and engine.rank == 0:
        cache.put(facts, sampled)
    return sampled


def numerics(engine: Engine) -> dict[str, Any]:
    """What may give the same computation other bits. The ranks share the images, so each samples smaller batches."""
    weight = next(engine.module.parameters())
    device = torch.cuda.get_device_name(weight.device) if weight.device.type == "cuda" else weight.device.type
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
    return versions | {"dtype": str(weight.dtype), "ranks": engine.world_size}


@torch.no_grad()
def sample(
    base: Base, engine: Engine, prompts: Sequence[Prompt], seed: int, num_latents: int, num_steps: int, guidance: float
) -> Tensor:
    """Each rank samples its share; all get all of it."""
    known, null = base.encode(prompts), base.unconditional()
    padded = -(-num_latents // engine.world_size) * engine.world_size
    mine = torch.arange(padded)[shard(padded, engine.rank, engine.world_size)]
    parts = []
    for chunk in mine.split(AT_ONCE):
        noise = initial_noise(base.latent_shape, [derived_seed(seed, "latent", i) for i in chunk.tolist()])
        sampled = sample_latents(
            base,
            engine.module,
            noise.to(base.device),
            known.rows((chunk % len(known)).to(base.device)),
            null,
            num_steps=num_steps,
            guidance=guidance,
            solver="dpm",
        )
        parts.append(sampled)
    return engine.gather(torch.cat(parts))[:num_latents]
