"""One of several ranks; rank 0 leaves what they found together as files. test_zero.py starts them, forked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed import TCPStore

from advanchor import methods, models
from advanchor.concepts import Concept
from advanchor.methods import MethodSettings, adv_anchor, hardened_anchor
from advanchor.runtime.deepspeed_engine import DeepSpeedEngine, join_ranks
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import Engine, TorchEngine

PROMPTS: dict[str, Any] = {"templates": ("a {}", "a red {}"), "neutral": ("a shape", "a red shape")}
FIRST, OTHER = (Concept(name=name, kind="object", **PROMPTS) for name in ("star", "circle"))
TASKS = {"first": FIRST, "between": OTHER, "again": FIRST}
QUICK: dict[str, Any] = {
    "steps": 2, "anchor_steps": 2, "batch_size": 4, "num_latents": 4, "latent_steps": 2, "lr": 1e-3, "anchor_lr": 1e-2,
}  # fmt: skip
SETTINGS: dict[str, MethodSettings] = {
    "adv_anchor": adv_anchor.Settings(**QUICK, trained_weights="cross_attention"),
    "hardened_anchor": hardened_anchor.Settings(**QUICK, retain_prompts=20, rounds=1, round_steps=2, attack_steps=2),
}


def erase(base: models.Base, engine: Engine, delta: Delta, concept: Concept, method: str) -> dict[str, Tensor]:
    (erasure,) = methods.erase(Context(base, engine, delta, [concept], [0]), SETTINGS[method])
    return {name: tensor.contiguous() for name, tensor in erasure.delta.items()}


def held(parameters: Iterator[nn.Parameter]) -> float:
    """The share of some parameters' numbers that this rank keeps between forwards."""
    listed: list[Any] = list(parameters)  # with what DeepSpeed adds
    kept = sum(p.ds_tensor.numel() if hasattr(p, "ds_tensor") else p.numel() for p in listed)
    return kept / sum(p.ds_numel if hasattr(p, "ds_numel") else p.numel() for p in listed)


def masters_held(engine: DeepSpeedEngine) -> float:
    """The share of the float32 masters that this rank's optimizer steps."""
    optimizer = engine.engine.optimizer
    if engine.stage == 3:
        masters = optimizer.fp32_partitioned_groups_flat
    else:
        masters = [parameter for group in optimizer.optimizer.param_groups for parameter in group["params"]]
    own = sum(master.numel() for master in masters)
    return own / sum(getattr(p, "ds_numel", p.numel()) for p in engine.parameters.values())


def plain(folder: str, method: str) -> dict[str, Tensor]:
    base = models.load(folder)
    delta = Delta(base.backbone, SETTINGS[method].trained_weights)
    return erase(base, TorchEngine(base.backbone, delta.named_parameters()), delta, FIRST, method)


def main(folder: str, method: str, rank: str, ranks: str, port: str, work: str, tasks: str, *cases: str) -> None:
    """`tasks`, the names of some of TASKS, are done in every case; rank 0 also finds the first without the others."""
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", int(port), int(ranks), is_master=rank == "0")
    join_ranks(int(rank), int(ranks), store, "cpu")
    found, facts = {"plain": plain(folder, method)} if rank == "0" else {}, {}
    for case in cases:
        stage, precision, offload = case.split("-")
        base = models.load(folder)
        delta = Delta(base.backbone, SETTINGS[method].trained_weights)
        engine = DeepSpeedEngine(
            base.backbone, delta.named_parameters(), stage=int(stage), precision=precision, offload=offload
        )
        for name in tasks.split():
            found[f"{case}-{name}"] = erase(base, engine, delta, TASKS[name], method)
        facts[case] = {"weights": held(base.backbone.parameters()), "masters": masters_held(engine)}
    if rank == "0":
        for name, tensors in found.items():
            save_file(tensors, Path(work) / name)
        (Path(work) / "facts.json").write_text(json.dumps(facts))
