"""One base's measurements, in a process of its own: `python -m advanchor.bench.gpu_case '{"name": ...}'`, as JSON."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from advanchor import methods
from advanchor.batch.memory import BYTES_PER_WEIGHT, SPARE, bytes_of, delta_weights, kept_bytes
from advanchor.bench.published import PUBLISHED
from advanchor.bench.random_base import random_base, resize, told
from advanchor.bench.trial import matmul_flops
from advanchor.concepts import Concept
from advanchor.methods.adv_anchor import Settings
from advanchor.models.base import Base
from advanchor.models.sampling import initial_noise, sample_latents
from advanchor.training.checkpointing import checkpointed as keep_inputs_only
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

DTYPE = torch.bfloat16
PACKS = (8, 4, 2, 1)
STEPS = 2  # of each measurement
SHARE = 0.9  # of a device's memory that a pack may be counted to need
SETTINGS = Settings(
    trained_weights="readers", steps=STEPS, anchor_steps=1, batch_size=1, num_latents=1, latent_steps=STEPS
)
CONCEPT = Concept(
    name="star", kind="object", templates=("a picture of a {}", "one {}"), neutral=("a picture", "one thing")
)


@dataclass(frozen=True)
class Case:
    name: str  # one of PUBLISHED
    toy: bool = False

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() and not self.toy else "cpu"


@dataclass
class Step:
    """What one step took. Bytes are of a GPU's tensors, None on a CPU."""

    what: str
    pixels: int  # of a picture's side
    concepts: int = 0  # in the pack; 0: not even one is counted to fit
    seconds: float | None = None
    flops: float | None = None  # floating-point operations of the step, what checkpointing repeats among them
    peak_bytes: int | None = None
    counted_bytes: float | None = None  # what `plan` would say of denoiser, deltas and activations


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: str) -> tuple[float, float, int | None]:
    """Seconds, operations and peak bytes of a call that has been made once before."""
    with FlopCounterMode(display=False) as counter:
        run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    wait()
    started = time.perf_counter()
    run()
    wait()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return time.perf_counter() - started, float(counter.get_total_flops()), peak


def counted(case: Case, side: int, concepts: int, *, checkpointed: bool) -> float | None:
    """Bytes of a pack of adv_anchor's student, as batch/memory.py counts them; None where activations cannot be."""
    base = random_base(case.name, "meta", DTYPE, toy=case.toy)
    resize(base, side)
    try:
        kept = kept_bytes(base, told(base), checkpointed)
    except (NotImplementedError, RuntimeError, ValueError):  # a shape that depends on values, which are not there
        return None
    training = concepts * BYTES_PER_WEIGHT * delta_weights(base, SETTINGS.trained_weights)
    return bytes_of(base.backbone) + training + SPARE * 2 * SETTINGS.batch_size * concepts * kept


def pack(case: Case, base: Base, side: int, *, checkpointed: bool) -> int:
    """The largest pack that is counted to fit; 0 if none is. What cannot be counted goes alone."""
    if not base.packable:
        return 1
    available = SHARE * torch.cuda.mem_get_info()[1] if case.device == "cuda" else float("inf")
    sizes = PACKS if case.device == "cuda" else PACKS[-2:]
    for concepts in sizes:
        need = counted(case, side, concepts, checkpointed=checkpointed)
        if need is None:
            return 1
        if need <= available:
            return concepts
    return 0


def sampling(case: Case, base: Base, side: int) -> Step:
    """A step of two pictures with guidance as their pipeline has it."""
    resize(base, side)
    prompts = base.encode(["a star", "a ring"])
    noise, null = initial_noise(base.latent_shape, [0, 1]).to(base.device), base.unconditional()

    def run() -> None:
        sample_latents(base, base.backbone, noise, prompts, null, num_steps=STEPS, guidance=3.0, solver="ddim")

    with torch.no_grad():
        seconds, flops, peak = timed(run, case.device)
    step = Step("sampling, two pictures", side * PUBLISHED[case.name].scale, 0)
    step.seconds, step.flops, step.peak_bytes = seconds / STEPS, flops / STEPS, peak
    return step


def training(case: Case, base: Base, side: int, *, checkpointed: bool) -> Step:
    """A step of a pack through adv_anchor: one of the search, one of the student."""
    resize(base, side)
    concepts = pack(case, base, side, checkpointed=checkpointed)
    what = "training, checkpointed" if checkpointed else "training"
    step = Step(what, side * PUBLISHED[case.name].scale, concepts)
    step.counted_bytes = counted(case, side, max(concepts, 1), checkpointed=checkpointed)
    if not concepts:
        return step
    delta = Delta(base.backbone, SETTINGS.trained_weights, concepts)
    try:
        engine = TorchEngine(base.backbone, delta.named_parameters())
        context = Context(base, engine, delta, [CONCEPT] * concepts, list(range(concepts)))
        latents = torch.randn(concepts, 1, *base.latent_shape, device=base.device)
        context.latents = lambda _: latents  # type: ignore[method-assign] # sampling is a row of its own
        if checkpointed:
            keep_inputs_only(base, delta)

        def run() -> None:
            methods.erase(context, SETTINGS)

        seconds, step.flops, step.peak_bytes = timed(run, case.device)
        step.seconds, step.flops = seconds / STEPS, step.flops / STEPS
    finally:
        base.backbone.disable_gradient_checkpointing()  # type: ignore[operator]
        delta.detach()
    return step


def measure(case: Case) -> dict[str, Any]:
    base = random_base(case.name, case.device, DTYPE, toy=case.toy)
    large = base.latent_shape[1]
    small = large if case.toy else large // 2
    steps = [
        sampling(case, base, large),
        training(case, base, small, checkpointed=False),
        training(case, base, large, checkpointed=True),
    ]
    return {
        "name": case.name,
        "weights": sum(parameter.numel() for parameter in base.backbone.parameters()),
        "matmul_flops": matmul_flops(case.device, DTYPE, 8192 if case.device == "cuda" else 256),
        "steps": [asdict(step) for step in steps],
    }


if __name__ == "__main__":
    print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
