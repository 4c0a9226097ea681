"""What a batch's `model` can be: a name, a single-file checkpoint, or a base with LoRAs in its weights.

Everywhere else a base is called by one text: its name, or the mapping as JSON.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from advanchor.messages import field, quoted, reason
from advanchor.models.folders import PICKLED, SAFE, ModelError
from advanchor.settings import Section

Name = Annotated[str, Field(min_length=1, max_length=1000)]


def check_suffix(path: str) -> str:
    """Raises ValueError, with what to do, for what is no .safetensors file by its name."""
    if path.endswith(PICKLED):
        raise ValueError(
            f"{quoted(path)} is a pickle, which can run anything when it is read: give the {SAFE} file of the same "
            "weights, or convert it where you trust it"
        )
    if not path.endswith(SAFE):
        raise ValueError(f"{quoted(path)} is not a {SAFE} file")
    return path


SafeFile = Annotated[Name, AfterValidator(check_suffix)]


class SingleFile(Section):
    """A checkpoint in one file, as civitai and kohya have them."""

    single_file: SafeFile = Field(description="a .safetensors file")
    config: Name | None = Field(
        default=None,
        description="folder or hub id of a pipeline of its family: configuration and tokenizers, and the parts that "
        "the file does not hold; default: the hub id that diffusers takes it for",
    )


class Lora(Section):
    """A LoRA that is to be fused into the base."""

    path: SafeFile = Field(description="a .safetensors file, in PEFT's or kohya's keys")
    scale: float = Field(default=1.0, description="how many times as much it counts")


Checkpoint = Annotated[
    Annotated[Name, Tag("name")] | Annotated[SingleFile, Tag("single_file")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "single_file"),
]


class WithLoras(Section):
    """A base with LoRAs fused into its weights, before anything is erased."""

    base: Checkpoint = Field(description="a folder, a hub id or a single-file checkpoint")
    loras: tuple[Lora, ...] = Field(min_length=1, description="fused one after another")

    @model_validator(mode="after")
    def check(self) -> Self:
        if len({lora.path for lora in self.loras}) < len(self.loras):
            raise ValueError("loras: the same file stands there twice; add up its scales")
        return self


def from_json(value: Any) -> Any:
    """A mapping that is written as a text, as a mapping."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def tag(value: Any) -> str:
    if isinstance(value, WithLoras) or (isinstance(value, dict) and ("loras" in value or "base" in value)):
        return "loras"
    return "single_file" if isinstance(value, SingleFile | dict) else "name"


Model = Annotated[
    Annotated[Name, Tag("name")] | Annotated[SingleFile, Tag("single_file")] | Annotated[WithLoras, Tag("loras")],
    Discriminator(tag),
    BeforeValidator(from_json),
]
FORMS: dict[str, type[BaseModel]] = {"single_file": SingleFile, "loras": WithLoras}
MODEL: TypeAdapter[str | SingleFile | WithLoras] = TypeAdapter(Model)


def name_of(model: str | SingleFile | WithLoras) -> str:
    """The one text that a base is called by."""
    return model if isinstance(model, str) else json.dumps(model.model_dump(mode="json", exclude_none=True))


def parse(name: str) -> str | SingleFile | WithLoras:
    """What a text calls. Raises ModelError."""
    if not name.startswith("{"):
        return name
    try:
        return MODEL.validate_python(name)
    except ValidationError as error:
        details = error.errors()[0]
        where = field(part for part in details["loc"] if part not in FORMS)
        raise ModelError(f"model {quoted(name)}: {where}: {reason(details, ())}") from error


def folders_of(model: str | SingleFile | WithLoras) -> list[str]:
    """The folders or hub ids that it needs; "" for one that is to be found out."""
    match model:
        case WithLoras(base=base):
            return folders_of(base)
        case SingleFile(config=config):
            return [config or ""]
    return [model]


def existing(path: str, what: str) -> Path:
    """A file's path, whole. Raises ModelError."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise ModelError(f"{what} {quoted(path)} is not there")
    return found.resolve()
