"""Which tasks may share a pack, and how many of them: as many as pay, and no more than memory holds."""

import json
import time
from collections.abc import Mapping

import torch
from torch.autograd.graph import saved_tensors_hooks

from advanchor.batch.memory import BYTES_PER_WEIGHT, SPARE, delta_weights
from advanchor.batch.plan import Task
from advanchor.methods import METHODS, MethodSettings
from advanchor.models.base import Base
from advanchor.training.context import TrainingSettings

SIZES = (1, 2, 4, 8, 16, 32, 64)
GOOD_ENOUGH = 1.05  # a smaller pack is taken if a concept costs at most so much more: it loses less when it breaks
PATIENCE_S = 60.0  # no larger pack is tried once the measurement has taken so long


def pack_key(task: Task) -> str:
    """Tasks with the same key may share a pack: equal settings, equally many attributes. Some share with nobody."""
    settings = json.dumps(task.method.model_dump(mode="json"), sort_keys=True)
    own = "" if METHODS[task.method.name].PACKABLE else task.id
    return f"{settings} {len(task.concept.attributes)} {own}"


def choose_pack_size(base: Base, settings: MethodSettings, num_tasks: int, free_bytes: float) -> int:
    """How many concepts to erase at once on this device, by a measurement of seconds to a minute.

    `base` as it is before a Delta is made; `num_tasks`: how many may share packs; `free_bytes`: memory beside the base.
    """
    if not METHODS[settings.name].PACKABLE or not base.packable or not isinstance(settings, TrainingSettings):
        return 1  # what is not trained gains nothing; rows that cannot be told apart cannot share
    most = max(1, min(num_tasks, int(free_bytes / bytes_per_concept(base, settings))))
    return cheapest(seconds_per_concept(base, settings.batch_size, most))


def bytes_per_concept(base: Base, settings: TrainingSettings) -> float:
    """A slot of the delta, and the activations of the student's forward: two prompts for each row of a batch."""
    weights = delta_weights(base, settings.trained_weights)
    return BYTES_PER_WEIGHT * weights + SPARE * 2 * settings.batch_size * activation_bytes(base)


def cheapest(seconds: Mapping[int, float]) -> int:
    """The smallest pack whose seconds per concept are near the best."""
    best = min(seconds.values())
    return min(size for size, each in seconds.items() if each <= GOOD_ENOUGH * best)


def seconds_per_concept(base: Base, batch_size: int, most: int) -> dict[int, float]:
    """Of one step of the anchor search, by size of the pack up to `most`; until larger ones no longer pay."""
    found: dict[int, float] = {}
    started = time.perf_counter()
    for size in dict.fromkeys(min(size, most) for size in SIZES):
        found[size] = min(anchor_step_seconds(base, size * batch_size) for _ in range(2)) / size
        falling = found[size] < min(found.values()) * GOOD_ENOUGH
        if not falling or time.perf_counter() - started > PATIENCE_S:
            break
    return found


def anchor_step_seconds(base: Base, rows: int) -> float:
    """A forward of the teacher and the backward pass to the embeddings."""
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)
    started = time.perf_counter()
    output_gradient(base, rows)
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)
    return time.perf_counter() - started


def output_gradient(base: Base, rows: int) -> None:
    with torch.no_grad():
        null = base.encode([""]).rows(torch.zeros(rows, dtype=torch.long))
    embeds = null.prompt_embeds.requires_grad_()
    noise = torch.randn(rows, *base.latent_shape, device=base.device)
    timesteps = torch.full((rows,), base.schedule.num_train_timesteps // 2, device=base.device)
    with torch.enable_grad():
        base.denoise(base.backbone, noise, timesteps, null.with_embeds(embeds)).square().mean().backward()


def activation_bytes(base: Base) -> int:
    """What one row's forward keeps for the backward pass, beside the model's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in base.backbone.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output_gradient(base, 1)
    return sum(kept.values())
