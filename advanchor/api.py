"""The Python interface: erase a concept from a pipeline in this process; put erasures on, and take them off."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from advanchor import methods, models
from advanchor.artifacts import describe, erasure_files, record
from advanchor.artifacts.files import listed
from advanchor.artifacts.record import File
from advanchor.concepts import Concept
from advanchor.fusion.applied_neurons import check_neurons, cut_neurons, put_neurons
from advanchor.messages import quoted
from advanchor.training.context import Context, Erasure, Report, ignore
from advanchor.training.delta import Delta, DeltaLinear
from advanchor.training.engine import TorchEngine
from advanchor.training.latents import default_cache


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
        own = self.erasure
        for name, data in erasure_files(own.delta, own.anchor, self.base_tensors, self.metadata).items():
            (folder / name).write_bytes(data)
        return folder / "delta.safetensors"


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

    check_arguments(concept, method, seed)
    settings = method or Settings()
    parts = (part for part in pipeline.components.values() if isinstance(part, nn.Module))
    trainable = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
    base = models.of_pipeline(pipeline, name=str(getattr(pipeline, "name_or_path", "") or "pipeline"))
    settings = methods.for_base(settings, base.trained_weights)
    delta = Delta(base.backbone, settings.trained_weights)
    try:
        named = concept.with_prompts(base.profile.prompts)
        engine = TorchEngine(base.backbone, delta.named_parameters())
        context = Context(base, engine, delta, [named], [seed], report, default_cache())
        (erasure,) = methods.erase(context, settings)
        base_tensors = {name: tensor.detach().clone() for name, tensor in delta.base_tensors().items()}
        return ErasedConcept(erasure, base_tensors, describe(base, named, settings, seed))
    finally:
        delta.detach()
        base.awake()
        for parameter in trainable:
            parameter.requires_grad_()


def check_arguments(concept: Any, method: Any, seed: Any) -> None:
    """Raises TypeError, with what to write instead."""
    if not isinstance(concept, Concept):
        raise TypeError(f"concept is {quoted(concept)}, not a Concept: Concept(name='Van Gogh', kind='style')")
    known = tuple(module.Settings for module in methods.METHODS.values())
    if method is not None and not isinstance(method, known):
        named = method if isinstance(method, str) and method in methods.METHODS else "adv_anchor"
        raise TypeError(f"method is {quoted(method)}, not settings: advanchor.methods.{named}.Settings(...)")
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed is {quoted(seed)}, not a whole number")


def apply(pipeline: Any, path: str | Path, scale: float = 1.0) -> None:
    """Put an erasure on a stock pipeline: a delta file, or a folder that holds one.

    Of a fusion by neurons, the text encoder grows; `scale` is then how far they lead. Several erasures add up, whether
    each was made from the base or from what others had already changed. Raises ArtifactError, and changes nothing, for
    a file that is damaged, on the pipeline already, or made from another base, and for a scale that is not finite.
    """
    record.check_scale(scale)
    files = [record.read(file) for file in files_of(Path(path))]
    for file in files:  # all of them before the first is put on
        if is_neurons(file):
            check_neurons(pipeline.text_encoder, file)
        else:
            record.check_delta(models.backbone(pipeline), file)
    for number, file in enumerate(files):
        try:
            if is_neurons(file):
                put_neurons(pipeline.text_encoder, file, scale)
            else:
                record.put_delta(models.backbone(pipeline), file, scale)
        except BaseException:
            for earlier in reversed(files[:number]):
                take_off(pipeline, earlier)
            raise


def remove(pipeline: Any, path: str | Path) -> None:
    """Take an erasure off again that `apply` put on; bit for bit where no later one has changed the same weights.

    So it is, too, after `save_pretrained` and loading again, up to rounding. Raises ArtifactError, and changes nothing,
    if it is not on the pipeline, or if something else has changed the pipeline since.
    """
    files = [record.read(file) for file in files_of(Path(path))]
    for file in files:
        module = pipeline.text_encoder if is_neurons(file) else models.backbone(pipeline)
        record.layer_of(module, file)
        record.unchanged(module, file)
    for file in files:
        take_off(pipeline, file)


def take_off(pipeline: Any, file: File) -> None:
    if is_neurons(file):
        cut_neurons(pipeline.text_encoder, file)
    else:
        record.take_off(models.backbone(pipeline), file)


def is_neurons(file: File) -> bool:
    """Whether a file is about the text encoder's MLPs."""
    return any(".mlp." in name for name in file.tensors)


def files_of(path: Path) -> list[Path]:
    """The delta in a task's or a fusion's folder, and its neurons; a file stands for itself.

    Raises FileNotFoundError if there is neither, and ArtifactError for a result.json that is damaged.
    """
    if path.is_file():
        return [path]
    named = [path / name for name in listed(path) if fnmatch(name, "delta*.safetensors")]
    deltas = [file for file in named if file.is_file()] or sorted(path.glob("delta*.safetensors"))
    if found := [*deltas[:1], *path.glob("neurons.safetensors")]:
        return found
    raise FileNotFoundError(f"{path} is neither a delta file nor a folder with one")


__all__ = ["Concept", "DeltaLinear", "ErasedConcept", "apply", "erase", "remove"]
