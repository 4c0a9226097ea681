"""What a base is, as a sha256: of the files of its folder, or of its weights in memory."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from advanchor.models.cache import identity, recalled, remember, user_cache

LARGE = 64 * 2**20  # bytes from which on a digest is worth keeping: a tenth of a second's reading
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")  # those that have weights


def tensor_digest(tensor: Tensor, dtype: torch.dtype = torch.float16) -> str:
    """sha256 of a tensor's shape and values, rounded to 16 bits: the same for a model loaded in them or in float32."""
    half = tensor.detach().to("cpu", dtype).contiguous()
    return hashlib.sha256(str(tuple(half.shape)).encode() + half.view(torch.int16).numpy().tobytes()).hexdigest()


def tensor_digests(tensor: Tensor) -> dict[str, str]:
    """tensor_digest by each of the two types in which models are kept in 16 bits."""
    return {"float16": tensor_digest(tensor), "bfloat16": tensor_digest(tensor, torch.bfloat16)}


def weights_digest(*modules: nn.Module) -> str:
    """One sha256 for all tensors of some modules, by name."""
    return digest_of_states(module.state_dict() for module in modules)


def digest_of_states(states: Iterable[Mapping[str, Tensor]]) -> str:
    total = hashlib.sha256()
    for number, state in enumerate(states):
        for name, tensor in sorted(state.items()):
            total.update(f"{number} {name} {tensor_digest(tensor)}\n".encode())
    return total.hexdigest()


@cache
def folder_digest(folder: Path, weights_of: tuple[str, ...] | None = None) -> str:
    """sha256 of everything that decides what a model computes: configuration, tokenizer and weights.

    weights_of: the parts whose weights count; None: all.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        part, _, name = relative.partition("/")
        counts = weights_of is None or part in weights_of or path.suffix != ".safetensors"
        if path.suffix in {".json", ".txt", ".safetensors"} and name and counts:
            total.update(f"{relative} {file_digest(path)}\n".encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's content; a large file's is kept in the user's cache for as long as the file is unchanged."""
    path = path.resolve()
    own, folder = identity(path), user_cache("digests")
    if own["bytes"] < LARGE or folder is None:
        return hashed(path)
    entry = folder / f"{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    if known := recalled(entry, own):
        return known
    digest = hashed(path)
    if identity(path) == own:  # nobody has written to it meanwhile
        remember(entry, own, digest)
    return digest


def hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def files_weights_digest(folder: Path) -> str:
    """What weights_digest says of the pipeline in a folder, without loading it."""
    states = []
    for part in PARTS:
        state: dict[str, Tensor] = {}
        for path in sorted((folder / part).glob("*.safetensors")):
            state |= load_file(path)
        if state:
            states.append(state)
    return digest_of_states(states)
