"""The Python interface: erase one concept from a pipeline in this process, and put erasures on stock pipelines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from advanchor import methods
from advanchor.artifacts import apply_delta, pack, pack_delta
from advanchor.concepts import Concept, default_prompts
from advanchor.delta import Delta, DeltaLinear
from advanchor.engine import TorchEngine
from advanchor.fusion.neurons import apply_neurons
from advanchor.latents import default_cache
from advanchor.models import short_name
from advanchor.models.base import Base
from advanchor.training import Context, Erasure, Report, ignore


@dataclass
class ErasedConcept:
    """An erasure with what is needed to save it."""

    erasure: Erasure
    base_tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def save(self, folder: str | Path) -> Path:
        """Write delta.safetensors and, where there is one, anchor.safetensors; returns the delta's path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        delta_bytes, anchor_bytes = packed(self)
        (folder / "delta.safetensors").write_bytes(delta_bytes)
        if anchor_bytes:
            (folder / "anchor.safetensors").write_bytes(anchor_bytes)
        return folder / "delta.safetensors"


def packed(erased: ErasedConcept) -> tuple[bytes, bytes | None]:
    """The delta file and, where the method finds one, the anchor file."""
    e_adv = erased.erasure.e_adv
    delta_file = pack_delta(erased.erasure.delta, erased.base_tensors, erased.metadata)
    return delta_file, None if e_adv is None else pack({"e_adv": e_adv}, erased.metadata)


def describe(base: Base, concept: Concept, settings: methods.MethodSettings, seed: int) -> dict[str, Any]:
    """The metadata that an erasure's files carry."""
    return {
        "base": base.name,
        "base_digest": base.digest,
        "concept": concept.model_dump(mode="json"),
        "method": settings.model_dump(mode="json"),
        "seed": seed,
    }


def erase(
    pipeline: Any,
    concept: Concept,
    method: methods.MethodSettings | None = None,
    *,
    seed: int = 0,
    report: Report = ignore,
) -> ErasedConcept:
    """Erase a concept from a diffusers pipeline, in this process, with plain PyTorch.

    The pipeline itself is left as it was; put the result on it with `apply(pipeline, erased.save(folder))`.
    """
    from advanchor.methods.adv_anchor import Settings

    settings = method or Settings()
    trainable = [p for module in (pipeline.unet, pipeline.text_encoder, pipeline.vae) for p in module.parameters()]
    trainable = [parameter for parameter in trainable if parameter.requires_grad]
    base = Base(pipeline, name=short_name(str(getattr(pipeline, "name_or_path", "") or "pipeline")))
    delta = Delta(base.unet, settings.trained_weights)
    try:
        named = concept.with_prompts(default_prompts(base.name))
        engine = TorchEngine(base.unet, delta.named_parameters())
        context = Context(base, engine, delta, [named], [seed], report, default_cache())
        (erasure,) = methods.erase(context, settings)
        base_tensors = {name: tensor.detach().clone() for name, tensor in delta.base_tensors().items()}
        return ErasedConcept(erasure, base_tensors, describe(base, named, settings, seed))
    finally:
        delta.detach()
        for parameter in trainable:
            parameter.requires_grad_()


def apply(pipeline: Any, path: str | Path, scale: float = 1.0) -> None:
    """Put an erasure on a stock pipeline: a delta file, or a folder that holds one. Raises ArtifactError.

    Of a fusion by neurons, the text encoder grows; `scale` is then how far they lead.
    """
    for file in erasure_files(Path(path)):
        if file.name.startswith("neurons"):
            apply_neurons(pipeline.text_encoder, file, scale)
        else:
            apply_delta(pipeline.unet, file, scale)


def erasure_files(path: Path) -> list[Path]:
    """The delta in a task's or a fusion's folder, and its neurons; a file stands for itself.

    Raises FileNotFoundError if there is neither.
    """
    if path.is_file():
        return [path]
    if found := [*sorted(path.glob("delta*.safetensors"))[:1], *path.glob("neurons.safetensors")]:
        return found
    raise FileNotFoundError(f"{path} is neither a delta file nor a folder with one")


__all__ = ["Concept", "DeltaLinear", "ErasedConcept", "apply", "erase"]
