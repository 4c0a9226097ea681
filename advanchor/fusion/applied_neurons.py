"""Neurons on a stock text encoder: they are appended to its layers, and cut out again bit for bit, in any order."""

from typing import Any

import torch

from advanchor.artifacts import ArtifactError
from advanchor.artifacts.record import (
    File,
    Layer,
    check,
    check_scale,
    current,
    inherit,
    keep,
    layer_of,
    layers_of,
    saved,
    unchanged,
)
from advanchor.fusion.neurons import DOWN, UP, TextEncoderError, clip_parts, grow, linear, mlp_names


def check_neurons(text_encoder: Any, file: File) -> None:
    """Raises ArtifactError if a file of neurons does not belong on a text encoder."""
    try:
        names = mlp_names(text_encoder)
    except TextEncoderError as error:
        raise ArtifactError(f"{file.path}: {error}") from error
    if file.tensors.keys() != set(names.values()):
        raise ArtifactError(f"{file.path} does not hold neurons for the last layer of this text encoder")
    check(text_encoder, file)
    up, down = (text_encoder.get_parameter(names[f"{part}.weight"]) for part in (UP, DOWN))
    rows = len(file.tensors[names[f"{UP}.weight"]])
    wanted = {f"{UP}.weight": (rows, up.shape[1]), f"{UP}.bias": (rows,), f"{DOWN}.weight": (down.shape[0], rows)}
    for name, shape in wanted.items():
        if tuple(file.tensors[names[name]].shape) != shape:
            raise ArtifactError(f"{file.path}: tensor {names[name]!r} has another shape than this text encoder needs")


def put_neurons(text_encoder: Any, file: File, scale: float) -> None:
    """Append neurons that lead `scale` times as far, and write it down. Raises ArtifactError, and changes nothing."""
    check_scale(scale)
    check_neurons(text_encoder, file)
    before, start = current(text_encoder, set(file.tensors)), text_encoder.config.intermediate_size
    grow(text_encoder, {name: tensor * scale if DOWN in name else tensor for name, tensor in file.tensors.items()})
    rows = (start, text_encoder.config.intermediate_size - start)
    layers_of(text_encoder).append(Layer(file.sha256, str(file.path), scale, dict(before), rows=rows))
    keep(text_encoder, current(text_encoder, set(file.tensors)))


@torch.no_grad()
def cut_neurons(text_encoder: Any, file: File) -> None:
    """Undo put_neurons. Raises ArtifactError, and changes nothing, if the file is not on the text encoder."""
    layer = layer_of(text_encoder, file)
    unchanged(text_encoder, file)
    start, count = layer.rows or (0, 0)
    for part in clip_parts(text_encoder)[1]:
        mlp: Any = part.mlp
        stay = torch.cat([torch.arange(start), torch.arange(start + count, len(mlp.fc1.bias))]).to(mlp.fc1.bias.device)
        setattr(mlp, UP, linear(mlp.fc1.weight[stay], mlp.fc1.bias[stay]))
        setattr(mlp, DOWN, linear(mlp.fc2.weight[:, stay], mlp.fc2.bias))
    text_encoder.config.intermediate_size -= count
    layers = layers_of(text_encoder)
    later = layers[layers.index(layer) + 1 :]
    for name in layer.before:
        inherit(later, layer, name)
    for other in later:
        if other.rows:
            other.rows = (other.rows[0] - count, other.rows[1])
    layers.remove(layer)
    keep(text_encoder, {**saved(text_encoder).get("now", {}), **current(text_encoder, set(layer.before))})
