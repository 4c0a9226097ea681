"""Where a base's files are, and the digest of what it is: of a name, a single-file checkpoint, a base with LoRAs."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advanchor.messages import quoted
from advanchor.models import folders, single_file
from advanchor.models.digests import PARTS, file_digest, folder_digest
from advanchor.models.folders import PICKLED, ModelError, pipeline_class
from advanchor.models.naming import Lora, SingleFile, WithLoras, existing, parse
from advanchor.models.profile import built_in

CONFIGURED = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.jinja"]
WEIGHTS = [f"{part}/{stem}*.safetensors" for part in PARTS for stem in ("model", "diffusion_pytorch_model")]
UNUSED = ["*.fp16.*", "*.bf16.*", "*.non_ema.*"]


@dataclass(frozen=True)
class Place:
    """A base's files on this machine."""

    folder: Path  # its configuration and tokenizers, and its weights where no file holds them
    checkpoint: Path | None = None
    loras: tuple[Lora, ...] = ()

    def check(self) -> None:
        """Raises ModelError, in one line, for what is not supported, not whole, or a pickle."""
        if self.checkpoint:
            single_file.check(self.checkpoint, self.folder)
        else:
            folders.check(self.folder)
        for lora in self.loras:
            single_file.shapes(Path(lora.path))

    @property
    def digest(self) -> str:
        """sha256 of everything that decides what the base computes."""
        if self.checkpoint:
            lacking = tuple(single_file.lacking(self.checkpoint, self.folder))
            own = combined([folder_digest(self.folder, lacking), f"single_file {file_digest(self.checkpoint)}"])
        else:
            own = folder_digest(self.folder)
        if not self.loras:
            return own
        return combined([own, *(f"lora {file_digest(Path(lora.path))} {lora.scale!r}" for lora in self.loras)])

    @property
    def made_of(self) -> dict[str, Any]:
        """The files beside the folder, with their sha256; empty where there are none."""
        found: dict[str, Any] = {}
        if self.checkpoint:
            found["single_file"] = {"name": self.checkpoint.name, "sha256": file_digest(self.checkpoint)}
        if self.loras:
            found["loras"] = [
                {"name": Path(lora.path).name, "sha256": file_digest(Path(lora.path)), "scale": lora.scale}
                for lora in self.loras
            ]
        return found


def combined(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def place_of(name: str) -> Place:
    """Where the base of a name is; what is on the hub is fetched. Raises ModelError."""
    match parse(name):
        case WithLoras(base=base, loras=loras):
            place = of_file(base) if isinstance(base, SingleFile) else Place(resolve(base))
            found = (lora.model_copy(update={"path": str(existing(lora.path, "LoRA"))}) for lora in loras)
            return replace(place, loras=tuple(found))
        case SingleFile() as model:
            return of_file(model)
        case str(plain):
            return Place(resolve(plain))
    raise AssertionError(name)


def of_file(model: SingleFile) -> Place:
    """Raises ModelError, which says what to give, where the configuration is neither named nor to be fetched."""
    checkpoint = existing(model.single_file, "single_file")
    if model.config is not None:
        return Place(resolve(model.config, weights=False), checkpoint)
    family = single_file.family(checkpoint)
    try:
        return Place(resolve(family, weights=False), checkpoint)
    except ModelError as error:
        raise ModelError(
            f"single_file {quoted(model.single_file)}: give `config` beside it, a folder with the pipeline's "
            f"model_index.json, configuration and tokenizers: diffusers takes it for {family}, but {error}"
        ) from error


def resolve(name: str, *, weights: bool = True) -> Path:
    """The local folder of a pipeline; a hub id is fetched, in safetensors only, once its class is known. ModelError.

    weights: or else of a hub id only its configuration and tokenizers.
    """
    if name in built_in():
        return built_in()[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_file():
        raise ModelError(wrong_file(name))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"model {name!r} is neither a folder, a hub id (owner/name[@revision]) nor {', '.join(built_in())}"
        )
    return fetched(name, weights=weights)


def wrong_file(name: str) -> str:
    if name.endswith(PICKLED):
        return f"model {name!r} is a pickle, which can run anything when read: give a .safetensors file or a folder"
    return f"model {name!r} is a file: write model: {{single_file: {name}, config: FOLDER}}, a pipeline's folder"


def fetched(name: str, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        found = Path(snapshot_download(repository, revision=revision or None, allow_patterns=CONFIGURED))
        pipeline_class(found)
        if not weights:
            return found
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=[*CONFIGURED, *WEIGHTS],
                ignore_patterns=UNUSED,
            )
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"model {name!r} could not be fetched from the hub: {error}") from error
