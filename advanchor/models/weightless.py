"""A base without its weights, from a folder's configuration alone.

`encoders`: its tokenizers, which find a concept's tokens in a moment, beside configurations. `hollow`: all of its
modules on the meta device, which know shapes and can be called, but compute nothing.
"""

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from advanchor.models import folders
from advanchor.models.base import Base
from advanchor.models.digests import PARTS
from advanchor.models.encoders import TextEncoder
from advanchor.models.folders import WEIGHTLESS, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@contextmanager
def in_one_line(folder: Path, what: str) -> Iterator[None]:
    """What the libraries say of a folder, as a ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(f"model folder {folder} {what}: {type(error).__name__}: {line}") from error


def own_class(folder: Path) -> Any:
    """The class of a folder's pipeline. Raises ModelError for one that is not supported."""
    import diffusers

    return getattr(diffusers, folders.pipeline_class(folder))


def encoders(folder: Path, kind: type[Base]) -> list[TextEncoder]:
    """A base's text encoders without weights: they know where a prompt's tokens stand, and embed nothing.

    kind: the class that adapts the folder. Raises ModelError.
    """
    base = kind.__new__(kind)
    with in_one_line(folder, "has text encoders that cannot be read"):
        base.pipeline = configured(folder)
        return base.make_encoders()


def configured(folder: Path) -> Any:
    """A diffusers pipeline of the folder's class; of parts with weights it has configurations only."""
    kind, present = own_class(folder), [part for part, _ in folders.parts(folder)]
    tokenizers = {part: tokenizer(folder, part) for part in present if part.startswith("tokenizer")}
    parameters = inspect.signature(kind.__init__).parameters
    empty = {name: None for name, own in parameters.items() if own.default is own.empty and name != "self"}
    unchecked = {"requires_safety_checker": False} if "requires_safety_checker" in parameters else {}
    made = kind(**empty | unchecked | tokenizers)
    for part in set(present) & set(PARTS):
        config = folders.read_json(folder / part / "config.json")
        setattr(made, part, SimpleNamespace(config=SimpleNamespace(**config)))
    return made


def tokenizer(folder: Path, part: str = "tokenizer") -> "PreTrainedTokenizerBase":
    """One of a model folder's tokenizers. Raises ModelError."""
    from transformers import AutoTokenizer

    with in_one_line(folder, f"has no {part} that can be loaded"):
        return AutoTokenizer.from_pretrained(folder / part, local_files_only=True)


def hollow(folder: Path, kind: type[Base], dtype: torch.dtype) -> Base:
    """The base that a folder describes, on the meta device, in a dtype. Raises ModelError."""
    with in_one_line(folder, "describes no base"):
        made = own_class(folder)
        parts = {part: component(folder / part, part, name, dtype) for part, name in folders.parts(folder)}
        expected = [part for part in folders.OPTIONAL if part in made._get_signature_keys(made)[0]]
        return kind(made(**dict.fromkeys(expected) | parts), name="hollow", digest="hollow")


def component(folder: Path, part: str, name: str, dtype: torch.dtype) -> Any:
    """A tokenizer or scheduler as it is, a module on the meta device."""
    libraries = (importlib.import_module(library) for library in ("transformers", "diffusers"))
    kind: Any = next(getattr(library, name) for library in libraries if hasattr(library, name))
    if part.startswith(WEIGHTLESS):
        return kind.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        if hasattr(kind, "load_config"):
            module: nn.Module = kind.from_config(kind.load_config(folder, local_files_only=True))
        else:
            module = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
    return module.to(dtype)
