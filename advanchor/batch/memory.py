"""What a task needs of each GPU, counted on the meta device: nothing is loaded and nothing is computed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from advanchor import models
from advanchor.batch.spec import BatchSpec
from advanchor.concepts import Concept
from advanchor.methods import for_base
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.folders import ModelError, pipeline_class
from advanchor.models.readers import linear_names, reader_group
from advanchor.models.weightless import hollow
from advanchor.training.context import TrainingSettings

GB = 1e9
BYTES_PER_WEIGHT = 24  # of a delta: weight, gradient, Adam's two moments, and ZeRO's master copy and buffer, float32
SPARE = 1.5  # what a forward needs beyond the activations that it keeps for the backward pass
SHARED = {1: 16, 2: 20, 3: 24}  # of those bytes, what a ZeRO stage partitions


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU of a gang."""

    backbone: float
    encoders: float  # which leave once prompts are encoded
    vae: float
    training: float  # the deltas with their gradients and optimizer state
    activations: float | None  # None: this base cannot be followed on the meta device
    rows: int  # of a student's forward on one GPU
    side: int  # of a picture, in pixels

    @property
    def total(self) -> float:
        """The larger of what encoding prompts and what training needs."""
        trained = self.training + SPARE * (self.activations or 0)
        return self.backbone + self.vae + max(self.encoders, trained)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"total": self.total}

    def sentence(self) -> str:
        kept = "not counted" if self.activations is None else f"{self.activations / GB:.2f}"
        return (
            f"{self.total / GB:.2f} GB on each GPU: denoiser {self.backbone / GB:.2f}, VAE {self.vae / GB:.2f}, and "
            f"the larger of text encoders {self.encoders / GB:.2f} and training {self.training / GB:.2f} + {SPARE:g} x "
            f"activations {kept} ({self.rows} rows of {self.side} x {self.side} pixels)"
        )


def needed(spec: BatchSpec, concepts: Sequence[Concept]) -> Memory:
    """The most that any kind of a batch's concepts needs. Raises ModelError."""
    folder, precision = models.place_of(spec.base).folder, spec.deepspeed.precision
    kinds = dict.fromkeys(concept.kind for concept in concepts)
    return max((of_kind(spec, kind, folder, precision) for kind in kinds), key=lambda memory: memory.total)


def of_kind(spec: BatchSpec, kind: str, folder: Path, precision: str) -> Memory:
    base, resources, stage = hollow_base(folder, precision), spec.resources, spec.deepspeed.stage
    method, offloaded = spec.method_for(kind), spec.deepspeed.offload == "cpu"
    method = for_base(method, base.trained_weights)
    ranks, slots = resources.ranks, 1 if resources.concepts_per_pack == "auto" else resources.concepts_per_pack
    weights = delta_weights(base, method.trained_weights)
    trains = isinstance(method, TrainingSettings)
    rows = max(1, 2 * method.batch_size * slots // ranks) if isinstance(method, TrainingSettings) else 1
    kept = activations(folder, precision, resources.gradient_checkpointing) if trains else 0.0
    partitioned = 0.0 if offloaded else SHARED[stage] / ranks
    backbone = bytes_of(base.backbone)
    if stage == 3:
        backbone = 0 if offloaded else backbone / ranks
    return Memory(
        backbone=backbone,
        encoders=sum(bytes_of(encoder.module) for encoder in base.encoders),
        vae=bytes_of(base.vae),
        training=slots * weights * (BYTES_PER_WEIGHT - SHARED[stage] + partitioned),
        activations=None if kept is None else rows * kept,
        rows=rows,
        side=base.latent_shape[1] * scale_of(base),
    )


@cache
def hollow_base(folder: Path, precision: str) -> Base:
    return hollow(folder, models.adapter_class(pipeline_class(folder)), models.DTYPES[precision])


def scale_of(base: Base) -> int:
    """Pixels of a latent's side."""
    return int(getattr(base.pipeline, "vae_scale_factor", 8))


def bytes_of(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def delta_weights(base: Base, trained_weights: str) -> int:
    """Numbers of a delta: of readers the weights, of other Linears the biases as well."""
    kind, total = type(base.backbone).__name__, 0
    for name in linear_names(base.backbone, trained_weights):
        layer: Any = base.backbone.get_submodule(name)
        total += layer.weight.numel()
        total += layer.bias.numel() if layer.bias is not None and reader_group(kind, name) is None else 0
    return total


# --- activations


class Flash(torch.autograd.Function):
    """Attention as a fused kernel has it: queries, keys, values, mask, output and a number per query are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        told = [] if mask is None else [query.new_empty(mask.shape)]
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, *told, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output


class Shapes(TorchFunctionMode):
    """Attention is fused, where the meta device would keep every pair of tokens; what asks for a value is told no."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is nn.functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | (kwargs or {})
            return Flash.apply(named["query"], named["key"], named["value"], named.get("attn_mask"))
        if function in (Tensor.__bool__, Tensor.item) and args[0].is_meta:  # is a mask all ones?
            return False
        return function(*args, **(kwargs or {}))


class Kept:
    """Storages that a forward keeps for the backward pass, beside the model's own."""

    def __init__(self, base: Base) -> None:
        self.own = {tensor.untyped_storage()._cdata for tensor in base.backbone.state_dict().values()}
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.block = 0  # bytes of the largest block that is made again

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.own:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values()) + self.block

    @contextmanager
    def watched(self) -> Iterator[None]:
        with saved_tensors_hooks(self.keep, lambda tensor: tensor):
            yield

    def checkpoint(self, base: Base, block: Any, *inputs: Any) -> Any:
        """As torch's: of a block its inputs are kept, and everything once more for the block at hand."""
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                self.keep(tensor)
        again = Kept(base)
        with again.watched():
            output = block(*inputs)
        self.block = max(self.block, again.bytes)
        return output


@cache
def activations(folder: Path, precision: str, checkpointed: bool) -> float | None:
    """Bytes that one row's forward keeps where gradients go to the prompt embeddings."""
    base = hollow_base(folder, precision)
    try:
        with torch.no_grad(), Shapes():
            conditioning = base.encode([""])
        return kept_bytes(base, conditioning, checkpointed)
    except (NotImplementedError, RuntimeError, ValueError):  # a shape that depends on values, which are not there
        return None


def kept_bytes(base: Base, conditioning: Conditioning, checkpointed: bool) -> int:
    """What a forward on the meta device keeps, for as many rows as the conditioning has."""
    kept = Kept(base)
    if checkpointed:
        base.backbone.enable_gradient_checkpointing(lambda block, *inputs: kept.checkpoint(base, block, *inputs))
    try:
        noise = torch.empty(len(conditioning), *base.latent_shape, device="meta")
        timesteps = torch.zeros(len(conditioning), device="meta", dtype=torch.long)
        told = conditioning.with_embeds(conditioning.prompt_embeds.requires_grad_())
        with torch.enable_grad(), Shapes(), kept.watched():
            base.denoise(base.backbone, noise, timesteps, told).square().mean()
        return kept.bytes
    finally:
        base.backbone.disable_gradient_checkpointing()


# --- against a GPU


def known_gpu_bytes(spec: BatchSpec) -> float | None:
    """What a rank may have of its GPU; None on CPUs, and where it is not known."""
    said, share = spec.resources.gpu_memory_gb, spec.resources.gpus_per_task
    if spec.resources.device == "cpu" or (said == "auto" and not torch.cuda.is_available()):
        return None
    whole = torch.cuda.mem_get_info()[1] if said == "auto" else said * GB
    return whole * min(1.0, share) if share != "auto" else whole


def problem(spec: BatchSpec, concepts: Sequence[Concept]) -> str:
    """Why a task cannot fit into its GPU, and which settings would help; empty if it can, or if that is not known."""
    available = known_gpu_bytes(spec)
    if available is None:
        return ""
    try:
        memory = needed(spec, concepts)
    except ModelError as error:
        return f"what a task needs cannot be counted: {error}"
    if memory.total <= available:
        return ""
    helped = [(text, needed(changed, concepts).total) for text, changed in remedies(spec)]
    better = [f"{text} ({total / GB:.2f} GB)" for text, total in helped if total < 0.99 * memory.total]
    advice = f"; it would be less with {', '.join(better)}" if better else ""
    return f"a task needs {memory.sentence()}, but has {available / GB:.2f} GB{advice}"


def remedies(spec: BatchSpec) -> list[tuple[str, BatchSpec]]:
    """Settings that may make a task smaller, each alone."""
    ranks = 2 * spec.resources.ranks
    changes: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("deepspeed.precision: bf16", {}, {"precision": "bf16"}),
        ("resources.gradient_checkpointing: true", {"gradient_checkpointing": True}, {}),
        ("resources.concepts_per_pack: 1", {"concepts_per_pack": 1}, {}),
        (f"resources.gpus_per_task: {ranks} and deepspeed.stage: 3", {"gpus_per_task": ranks}, {"stage": 3}),
    ]
    return [
        (
            text,
            spec.model_copy(
                update={
                    "resources": spec.resources.model_copy(update=resources),
                    "deepspeed": spec.deepspeed.model_copy(update=deepspeed),
                }
            ),
        )
        for text, resources, deepspeed in changes
    ]
