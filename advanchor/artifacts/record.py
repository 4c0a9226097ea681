"""What has been put on a module: which files, how much of each, and what was there before.

The record is kept on the module and, without the tensors, in its configuration, so that `save_pretrained` saves it. A
file belongs on a module if the tensors that it changes are what the file was made from: now, or before any of the files
that are on it already. Tensors are compared as rounded to 16 bits, since one model is loaded in several precisions.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.artifacts.files import BASE_DTYPE, BASE_TENSORS, CONTENT, ArtifactError, from_bytes, read_checked
from advanchor.models.digests import tensor_digests

RECORD = "_advanchor"  # in the configuration; diffusers keeps keys with an underscore without a warning
LAYERS = "advanchor_layers"  # on the module
UNDO_BYTES = 2**30  # of tensors as they were, at most, besides those of before the first file

Digests = dict[str, str]  # by float16 and bfloat16


@dataclass
class Layer:
    """One file on a module."""

    sha256: str  # of the file's content
    path: str  # what it was called
    scale: float
    before: dict[str, Digests | None]  # of the tensors that it changes; None: a state that there never was
    undo: dict[str, Tensor] = field(default_factory=dict)  # those tensors, as far as they are kept
    rows: tuple[int, int] | None = None  # of neurons: where they begin, and how many there are


@dataclass
class File:
    """A file that has been read and checked."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    @property
    def sha256(self) -> str:
        return self.metadata[CONTENT]


def read(path: Path) -> File:
    """Raises ArtifactError for a file that is damaged, empty, or holds a value that is not finite."""
    tensors, metadata = from_bytes(read_checked(path), str(path))
    if not tensors:
        raise ArtifactError(f"{path} is empty: it changes nothing")
    return File(path, tensors, metadata)


def layers_of(module: nn.Module) -> list[Layer]:
    """What is on a module, in the order in which it was put there."""
    if LAYERS not in module.__dict__:
        module.__dict__[LAYERS] = [Layer(**entry) for entry in saved(module).get("layers", [])]
    return module.__dict__[LAYERS]


def saved(module: nn.Module) -> dict[str, Any]:
    """The record in a module's configuration; empty where there is none. Raises ArtifactError for a damaged one."""
    config: Any = getattr(module, "config", None)
    found = config.get(RECORD) if isinstance(config, Mapping) else getattr(config, RECORD, None)
    if found is None:
        return module.__dict__.setdefault(RECORD, {})  # a module without a configuration keeps it itself
    try:
        [Layer(**entry) for entry in found["layers"]]
        return dict(found)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"the model's configuration has a damaged {RECORD}: load another copy of it") from error


def keep(module: nn.Module, now: Mapping[str, Digests]) -> None:
    """Write down what is on the module, and what its tensors are now."""
    layers = layers_of(module)
    forget(layers)
    entries = [{k: v for k, v in vars(layer).items() if k != "undo"} for layer in layers]
    record = {"layers": entries, "now": dict(now)} if layers else {}
    config: Any = getattr(module, "config", None)
    if hasattr(module, "register_to_config"):
        module.register_to_config(**{RECORD: record or None})  # type: ignore[operator]
    elif config is not None:
        setattr(config, RECORD, record or None)
    module.__dict__[RECORD] = record


def forget(layers: list[Layer]) -> None:
    """Let go of the oldest tensors, but for those of before the first file, when they are too many."""
    held = 0
    for layer in reversed(layers[1:]):
        held += sum(tensor.nbytes for tensor in layer.undo.values())
        if held > UNDO_BYTES:
            layer.undo = {}


def current(module: nn.Module, names: set[str]) -> dict[str, Digests]:
    parameters = dict(module.named_parameters())
    return {name: tensor_digests(parameters[name]) for name in sorted(names) if name in parameters}


def check(module: nn.Module, file: File) -> dict[str, Digests]:
    """The digests of the tensors that a file changes, and of all that the files before it have changed.

    Raises ArtifactError if the file is on the module already, if the module lacks a tensor or has others than those
    that the file was made from, or if something else has changed it since the last file.
    """
    layers, path = layers_of(module), file.path
    for layer in layers:
        if layer.sha256 == file.sha256:
            raise ArtifactError(
                f"{path} is on this model already, at scale {layer.scale:g} (as {layer.path}); "
                "advanchor.remove takes it off, for another scale"
            )
    parameters = dict(module.named_parameters())
    if missing := sorted(file.tensors.keys() - parameters.keys()):
        raise ArtifactError(
            f"{path}: this model has no tensor {missing[0]!r} ({len(missing)} are missing): it is of another "
            "architecture, or adapters (LoRA) are loaded, which have to be unloaded or fused first"
        )
    now = unchanged(module, file)
    expected, dtype = file.metadata.get(BASE_TENSORS, {}), file.metadata.get(BASE_DTYPE)
    states = [now]
    for layer in reversed(layers):
        states.append({**states[-1], **layer.before})  # type: ignore[dict-item]
    wrong = [unlike(state, expected, parameters, str(dtype), file) for state in states]
    if all(wrong):
        raise ArtifactError(refusal(file, wrong[0], len(layers), parameters[wrong[0]].dtype))
    return now


def unchanged(module: nn.Module, file: File) -> dict[str, Digests]:
    """Digests as they are now. Raises ArtifactError if a tensor is not as the last file left it."""
    known = saved(module).get("now", {}) if layers_of(module) else {}
    now = current(module, {*file.tensors, *known})
    parameters = dict(module.named_parameters())
    for name, digests in known.items():
        if name not in now or not same(now[name], digests, parameters[name].dtype):
            raise ArtifactError(
                f"{file.path}: tensor {name!r} is not as {layers_of(module)[-1].path} left it: something else has "
                "changed the model since. Load the pipeline anew"
            )
    return now


def unlike(
    state: Mapping[str, Digests | None],
    expected: Mapping[str, Digests],
    parameters: Mapping[str, Tensor],
    made_in: str,
    file: File,
) -> str:
    """The first of a file's tensors that is not what the file was made from; empty if there is none."""
    for name in sorted(file.tensors):
        digests = state.get(name)
        dtype = torch.bfloat16 if made_in == "bfloat16" else parameters[name].dtype
        if digests is None or not same(digests, expected.get(name, {}), dtype):
            return name
    return ""


def same(one: Mapping[str, str], other: Any, dtype: torch.dtype) -> bool:
    """Whether two tensors are equal, as far as the coarser of float16 and `dtype` shows."""
    key = "bfloat16" if dtype is torch.bfloat16 else "float16"
    return isinstance(other, Mapping) and one.get(key) is not None and one.get(key) == other.get(key)


def refusal(file: File, name: str, num_layers: int, dtype: torch.dtype) -> str:
    made_in, base = file.metadata.get(BASE_DTYPE, "unknown"), file.metadata.get("base", "an unknown base")
    text = f"{file.path} was made from another base: tensor {name!r} is not the one of {base} that it was made from. "
    if num_layers:
        text += f"{num_layers} erasures are on this model; it is not what any of them was put on either. "
    return text + (
        f"Possible reasons: another model or revision; an erasure (or LoRA) that is merged into the weights; another "
        f"precision (the file was made in {made_in}, this model is in {str(dtype).removeprefix('torch.')}: "
        "load it in float32 or float16)"
    )


def check_scale(scale: float) -> None:
    """Raises ArtifactError for a scale that is no finite number."""
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < float("inf"):
        raise ArtifactError(f"scale {scale!r} is not a finite number")


# --- deltas


def check_delta(module: nn.Module, file: File) -> None:
    """Raises ArtifactError if a delta does not belong on a module."""
    check(module, file)
    parameters = dict(module.named_parameters())
    for name, tensor in file.tensors.items():
        if tensor.shape != parameters[name].shape or not tensor.is_floating_point():
            raise ArtifactError(f"{file.path}: tensor {name!r} has another shape or type than the model's")


@torch.no_grad()
def put_delta(module: nn.Module, file: File, scale: float) -> None:
    """Add scale * dW to a module's weights, in place, and write it down. Raises ArtifactError, and changes nothing."""
    check_scale(scale)
    check_delta(module, file)
    before = current(module, set(file.tensors))
    undo = {name: module.get_parameter(name).detach().to("cpu", copy=True) for name in file.tensors}
    changed = {name: added(module.get_parameter(name), file.tensors[name], scale) for name in file.tensors}
    if wrong := [name for name, tensor in changed.items() if not torch.isfinite(tensor).all()]:
        raise ArtifactError(
            f"{file.path}: at scale {scale:g} tensor {wrong[0]!r} would have values that are not finite"
        )
    for name, tensor in changed.items():
        module.get_parameter(name).copy_(tensor)
    layers_of(module).append(Layer(file.sha256, str(file.path), scale, dict(before), undo))
    keep(module, {**saved(module).get("now", {}), **current(module, set(file.tensors))})


def added(weight: Tensor, delta: Tensor, scale: float) -> Tensor:
    """W + scale * dW in the weight's own precision, summed in float32."""
    return (weight.float() + scale * delta.to(weight.device, torch.float32)).to(weight.dtype)


@torch.no_grad()
def take_off(module: nn.Module, file: File) -> None:
    """Undo put_delta: bit for bit where no later file has changed the same tensors, else by subtraction.

    Raises ArtifactError, and changes nothing, if the file is not on the module or something else has changed it.
    """
    layer = layer_of(module, file)
    unchanged(module, file)
    layers = layers_of(module)
    later = layers[layers.index(layer) + 1 :]
    for name, delta in file.tensors.items():
        weight, above = module.get_parameter(name), [other for other in later if name in other.before]
        if not above and name in layer.undo:
            weight.copy_(layer.undo[name])
        else:
            weight.copy_(added(weight, delta, -layer.scale))
        inherit(above, layer, name)
    layers.remove(layer)
    keep(module, {**saved(module).get("now", {}), **current(module, set(file.tensors))})


def layer_of(module: nn.Module, file: File) -> Layer:
    """Raises ArtifactError for a file that is not on the module."""
    for layer in layers_of(module):
        if layer.sha256 == file.sha256:
            return layer
    there = ", ".join(layer.path for layer in layers_of(module)) or "nothing"
    raise ArtifactError(f"{file.path} is not on this model; {there} is")


def inherit(above: list[Layer], gone: Layer, name: str) -> None:
    """What was before the layer that goes was, from now on, before the next one; of later ones nothing is known."""
    for number, layer in enumerate(above):
        layer.undo.pop(name, None)
        layer.before[name] = gone.before[name] if number == 0 else None
        if number == 0 and name in gone.undo:
            layer.undo[name] = gone.undo[name]


# --- for a while


@contextmanager
def applied(unet: nn.Module, delta: Mapping[str, Tensor]) -> Iterator[None]:
    """The weights are W0 + dW inside this block, and W0 again, bit for bit, after it."""
    parameters = dict(unet.named_parameters())
    before = {name: parameters[name].detach().clone() for name in delta}
    try:
        with torch.no_grad():
            for name, tensor in delta.items():
                parameters[name].copy_(parameters[name].float() + tensor.to(parameters[name].device))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                parameters[name].copy_(tensor)
