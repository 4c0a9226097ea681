"""One process, one DeepSpeed engine for life; leaves what it found as files. test_engine.py starts it, forked."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import TCPStore

from advanchor import methods, models
from advanchor.concepts import Concept
from advanchor.methods.adv_anchor import Settings
from advanchor.models.base import Base
from advanchor.runtime.deepspeed_engine import DeepSpeedEngine, join_ranks
from advanchor.training.checkpointing import checkpointed
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import Engine, TorchEngine

PROMPTS: dict[str, Any] = {"templates": ("a {}", "a red {}"), "neutral": ("a shape", "a red shape")}
FIRST, OTHER = (Concept(name=name, kind="object", **PROMPTS) for name in ("star", "circle"))
SLOTS = 3
SETTINGS = Settings(
    trained_weights="cross_attention", steps=3, anchor_steps=2, batch_size=2, num_latents=2, latent_steps=2, lr=1e-3,
    anchor_lr=0.3,
)  # fmt: skip


def erase(base: Base, engine: Engine, delta: Delta, *concepts: Concept) -> list[dict[str, Tensor]]:
    context = Context(base, engine, delta, concepts, [0] * len(concepts))
    return [erasure.delta for erasure in methods.erase(context, SETTINGS)]


@torch.no_grad()
def output(base: Base, engine: Engine) -> Tensor:
    noise = torch.randn(1, *base.latent_shape, generator=torch.Generator().manual_seed(0))
    return base.denoise(engine.module, noise, torch.tensor([400]), base.encode(["a star"]))


def main(folder: str, stage: str, precision: str, work: str) -> None:
    torch.set_num_threads(1)
    base = models.load(folder, dtype=models.DTYPES[precision])
    delta = Delta(base.backbone, SETTINGS.trained_weights, SLOTS)
    parameters = delta.named_parameters()
    plain = TorchEngine(base.backbone, parameters)
    found = {}
    [found["plain"]] = erase(base, plain, delta, FIRST)
    outputs = {"teacher of plain": output(base, plain)}

    join_ranks(0, 1, TCPStore("127.0.0.1", 0, 1, is_master=True))
    engine = DeepSpeedEngine(base.backbone, parameters, stage=int(stage), precision=precision, offload="none")
    outputs["teacher at first"] = output(base, engine)
    [found["first"]] = erase(base, engine, delta, FIRST)
    with delta.on(slots=0):
        outputs["student of first"] = output(base, engine)
    found["other packed"], found["packed"] = erase(base, engine, delta, OTHER, FIRST)
    with delta.on(slots=1):
        outputs["student of packed"] = output(base, engine)
    [found["between"]] = erase(base, engine, delta, OTHER)
    [found["again"]] = erase(base, engine, delta, FIRST)
    outputs["teacher"] = output(base, engine)
    engine.reset(SETTINGS.lr)
    found["reset"] = engine.export()
    engine.load(found["first"], slot=2)
    found["loaded"] = {name: tensor[2].clone() for name, tensor in engine.export().items()}
    with delta.on(slots=2):
        outputs["student of loaded"] = output(base, engine)
    checkpointed(base, delta)
    [found["checkpointed"]] = erase(base, engine, delta, FIRST)
    for name, tensors in {**found, "outputs": outputs}.items():
        save_file(tensors, Path(work) / name)
