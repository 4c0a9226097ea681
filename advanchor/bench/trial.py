"""One measurement, in a process of its own: `python -m advanchor.bench.trial '{"variant": ...}'` prints JSON."""

import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from advanchor import methods, models
from advanchor.batch.presets import PRESETS
from advanchor.bench import authors, shapes
from advanchor.concepts import Concept
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods.adv_anchor import Anchor, Settings
from advanchor.models.base import Base
from advanchor.pocket.scorer import PocketScorer
from advanchor.training.context import Batch, Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

VARIANTS = ("authors", "authors, all activations kept", "authors, gradients zeroed", "ours")


@dataclass(frozen=True)
class Trial:
    """What to measure. Every variant erases with batch 1, from the same draws, in the same number of steps.

    Several at once are one concept under several seeds, so that all variants have the same work to do.
    """

    variant: str  # one of VARIANTS
    model: str  # pocket, sd14 or sdxl
    concepts: int = 1  # at once, through one backbone
    concept: int = 0  # which of the gallery's
    first: int = 0  # of the seeds
    steps: int = 51
    anchor_steps: int = 30
    lr: float = 2e-3
    anchor_lr: float = 1.5e-3
    num_latents: int = 8
    latent_steps: int = 10
    side: int = 8  # of sd14's and sdxl's latents
    precision: str = "fp32"
    threads: int = 1
    seed: int = 0
    lever: str = ""  # one of LEVERS, to be compared with none
    evaluate: bool = False  # of the pocket gallery

    def settings(self) -> Settings:
        shared = ("steps", "anchor_steps", "lr", "anchor_lr", "num_latents", "latent_steps")
        chosen = {name: value for name, value in asdict(self).items() if name in shared}
        return Settings(
            batch_size=1,
            trained_weights="cross_attention",
            perturb_tokens="concept_and_later",
            reset_anchor_optimizer=True,
            **chosen,
        )


@dataclass
class Measured:
    """What one process has found."""

    concepts: int
    start_s: float  # interpreter and imports
    load_s: float  # the model
    latents_s: float
    train_s: float  # anchor search and fine-tuning: what the ratios compare
    cpu_s: float  # of all threads, in that time: what remains comparable on a machine that others use, too
    models_s: float  # of train_s, inside the UNets, forwards and backward passes
    rows: dict[str, float]  # through the UNets, of all concepts, by kind of work (bench.work.Work)
    peak_mb: float  # of the process while it trains
    matmul_flops: float  # per second, of large products on this device
    scores: dict[str, float] = field(default_factory=dict)  # UA, IRA and CRA of the first concept, if asked


class Clock:
    """Seconds inside the functions it is wrapped around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = inner(*arguments, **named)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - started
            return result

        setattr(owner, name, timed)


def count_rows(unet: nn.Module, rows: dict[str, float], kind: Callable[[], str]) -> None:
    """Add up the rows of a UNet's forwards, and of the backward passes that follow them by kind."""

    def saw(_: nn.Module, arguments: tuple[Tensor, ...], output: Any) -> None:
        rows["forward"] = rows.get("forward", 0) + len(arguments[0])
        if output.sample.requires_grad:
            rows[kind()] = rows.get(kind(), 0) + len(arguments[0])

    unet.register_forward_hook(saw)


def channels_last(base: Base) -> None:
    base.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compiled_blocks(base: Base) -> None:
    """Regional compilation: the repeated transformer blocks only."""
    base.backbone.compile_repeated_blocks(dynamic=False)  # type: ignore[operator]


def masked(_: Base) -> None:
    """Concepts whose search has stopped stay in the batch, so that its shape is fixed; they take no more steps."""

    def search(self: Anchor, batch: Batch) -> None:
        if self.settings.reset_anchor_optimizer:
            self.perturbation.reset_optimizer()
        for _ in range(self.settings.anchor_steps):
            if not self.step(batch):
                break

    Anchor.search = search  # type: ignore[method-assign] # of this process, which measures nothing else


LEVERS: dict[str, Callable[[Base], None]] = {
    "channels_last": channels_last,
    "compile": compiled_blocks,
    "stopped concepts masked": masked,
}


def load(trial: Trial, device: str) -> Base:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[trial.precision]
    if trial.model in shapes.UNETS:
        return shapes.random_base(trial.model, trial.side, device, dtype)
    base = models.load(trial.model, device=device)
    base.backbone.to(dtype)
    return base


def concept_of(trial: Trial) -> Concept:
    """An object, a style, a person, the next object, and so on."""
    kinds = [PRESETS[f"gallery/{kind}"]() for kind in ("objects", "styles", "identities")]
    kind, number = trial.concept % len(kinds), trial.concept // len(kinds)
    return kinds[kind][number % len(kinds[kind])].with_prompts(models.default_prompts("pocket"))


def peak_mb(*, forget: bool = False) -> float:
    """The most memory of this process (on a GPU: of its tensors) since it was last told to forget."""
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
        if forget:
            torch.cuda.reset_peak_memory_stats()
        return peak
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    return peak


def matmul_flops(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations per second of the best of some large products."""
    a, best = torch.randn(size, size, device=device, dtype=dtype), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def prepared(
    trial: Trial, context: Context, latents: Tensor, rows: dict[str, float], clock: Clock
) -> Callable[[], list[dict[str, Tensor]]]:
    """The variant's erasing, which gives the deltas; what goes through its UNets is counted and timed."""
    base, settings = context.base, trial.settings()
    if trial.variant == "ours":
        layer = next(iter(context.delta.layers.values()))
        count_rows(base.backbone, rows, lambda: "to_delta" if layer.scale else "to_embeddings")

        def erase() -> list[dict[str, Tensor]]:
            return [erasure.delta for erasure in methods.erase(context, settings)]

    else:
        context.delta.detach()
        checkpointed, zeroed = "kept" not in trial.variant, "zeroed" in trial.variant
        student = authors.second_unet(base.backbone, checkpointed=checkpointed)
        for unet in (base.backbone, student):
            count_rows(unet, rows, lambda: "to_all_weights_checkpointed" if checkpointed else "to_all_weights")
        clock.wrap(student, "forward")
        batches = context.batches(settings, latents)

        def erase() -> list[dict[str, Tensor]]:
            return [authors.erase(context, student, settings, batches, zeroed=zeroed)]

    for owner, name in ((base.backbone, "forward"), (torch.autograd, "grad"), (torch.Tensor, "backward")):
        clock.wrap(owner, name)
    return erase


def measure(trial: Trial) -> Measured:
    start_s = time.time() - psutil.Process().create_time()
    torch.set_num_threads(trial.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings, clock, rows = trial.settings(), Clock(), {}
    begun = time.perf_counter()
    base = load(trial, device)
    delta = Delta(base.backbone, settings.trained_weights, trial.concepts)
    load_s = time.perf_counter() - begun
    if trial.lever:
        LEVERS[trial.lever](base)
    flops = matmul_flops(device, next(base.backbone.parameters()).dtype)

    begun = time.perf_counter()
    seeds = [1000 * trial.seed + trial.first + i for i in range(trial.concepts)]
    engine = TorchEngine(base.backbone, delta.named_parameters())
    context = Context(base, engine, delta, [concept_of(trial)] * trial.concepts, seeds)
    latents = context.latents(settings)
    latents_s = time.perf_counter() - begun
    context.latents = lambda _: latents  # type: ignore[method-assign] # a column of its own

    erase = prepared(trial, context, latents, rows, clock)
    peak_mb(forget=True)
    begun, cpu_begun = time.perf_counter(), time.process_time()
    deltas = erase()
    train_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
    peak = peak_mb()
    scores = score(context.concepts[0], deltas[0]) if trial.evaluate else {}
    return Measured(
        concepts=trial.concepts,
        start_s=start_s,
        load_s=load_s,
        latents_s=latents_s,
        train_s=train_s,
        cpu_s=cpu_s,
        models_s=clock.seconds,
        rows=rows,
        peak_mb=peak,
        matmul_flops=flops,
        scores=scores,
    )


def score(concept: Concept, tensors: dict[str, Tensor]) -> dict[str, float]:
    """Of a delta of the pocket gallery."""
    base = models.load("pocket", device="cuda" if torch.cuda.is_available() else "cpu")
    delta = Delta(base.backbone, "cross_attention")
    TorchEngine(base.backbone, delta.named_parameters()).load(delta.checked(tensors))
    evaluator = Evaluator(base, PocketScorer(base.device), EvaluationSettings(solver="dpm", steps=10))
    scores: dict[str, Any] = evaluator.evaluate(concept.name, delta.on).scores
    return {name: scores[name] for name in ("ua", "ira", "cra")}


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Trial(**json.loads(sys.argv[1]))))))
