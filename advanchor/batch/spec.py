"""A batch of concepts as users write it: its settings and what they mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WrapValidator, field_validator, model_validator

from advanchor.batch.presets import PRESETS
from advanchor.concepts import Concept, KindName
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.messages import choice, quoted
from advanchor.methods import MethodSettings, adv_anchor
from advanchor.models.naming import Model, name_of
from advanchor.settings import LARGEST, Section

MOST_SHOWN = 500  # problems


class BatchError(ValueError):
    """Everything that is wrong with a batch, one line each: file:line:column: field: what and what instead."""

    def __init__(self, problems: Sequence[str], rest: Any = None) -> None:
        """rest: what could be read all the same, a batch.file.Batch, in which more may be wrong."""
        self.problems = list(dict.fromkeys(problems))
        left = len(self.problems) - MOST_SHOWN
        more = [f"and {left:,} more"] if left > 0 else []
        super().__init__("\n".join([*self.problems[:MOST_SHOWN], *more]))
        self.rest = rest


class PresetEntry(Section):
    """Concepts that come with the program."""

    preset: str = Field(description="name of a preset")
    count: int | None = Field(default=None, ge=1, description="only the first so many")

    @field_validator("preset")
    @classmethod
    def check(cls, value: str) -> str:
        if value not in PRESETS:
            raise ValueError(choice(value, PRESETS))
        return value


class FileEntry(Section):
    """Concepts from a table with the columns name, kind and, where there is one, similar."""

    model_config = ConfigDict(populate_by_name=True)

    source: Path = Field(alias="from", description="CSV file, relative to the batch file")


def entry_tag(entry: Any) -> str:
    """Of an entry as it is read, a mapping, or as it is written."""
    if isinstance(entry, BaseModel):
        return next(tag for tag, kind in ENTRIES.items() if isinstance(entry, kind))
    keys = entry if isinstance(entry, dict) else {}
    return "preset" if "preset" in keys else "from" if "from" in keys else "concept"


Entry = Annotated[
    Annotated[Concept, Tag("concept")] | Annotated[PresetEntry, Tag("preset")] | Annotated[FileEntry, Tag("from")],
    Discriminator(entry_tag),
]
ENTRIES: dict[str, type[BaseModel]] = {"concept": Concept, "preset": PresetEntry, "from": FileEntry}


def number_or_auto(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST:
        return float(value)
    raise ValueError(f"{quoted(value)} is neither auto nor a number above 0")


def count_or_auto(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST):
        return value
    raise ValueError(f"{quoted(value)} is neither auto nor a whole number above 0")


NUMBER_OR_AUTO = WrapValidator(lambda value, _: number_or_auto(value))
COUNT_OR_AUTO = WrapValidator(lambda value, _: count_or_auto(value))


class Resources(Section):
    """What a task gets, and how patient the run is with it."""

    device: Literal["auto", "gpu", "cpu"] = Field(
        default="auto", description="auto: GPUs where the cluster has any when the run starts, or the CPU"
    )
    gpus_per_task: Annotated[Literal["auto"] | float, NUMBER_OR_AUTO] = Field(
        default="auto",
        description="ranks that share one task, a GPU each (a CPU process each where there are no GPUs); "
        "a fraction shares a GPU among gangs; auto: 1",
    )
    gangs: Annotated[Literal["auto"] | int, COUNT_OR_AUTO] = Field(
        default="auto",
        description="attempts at a time; auto: as many as the cluster holds, also when it grows; a number asks for so "
        "many, which makes an autoscaler add nodes",
    )
    concepts_per_pack: Annotated[Literal["auto"] | int, COUNT_OR_AUTO] = Field(
        default=1,
        description="concepts of equal settings that share every batch, each with its own delta and anchor, at most: "
        "the last ones are dealt out evenly; if the pack breaks, its members are tried again alone; auto: as many as "
        "pay, by a short measurement at the start",
    )
    gpu_memory_gb: Annotated[Literal["auto"] | float, NUMBER_OR_AUTO] = Field(
        default="auto",
        description="what each GPU has, 10^9 bytes: a task that needs more is refused before anything starts; auto: "
        "what this machine's has, unknown without one",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="keep only the inputs of the denoiser's blocks and make the rest again in the backward pass: about "
        "a tenth of the activations' memory, for about a third more time",
    )
    cpus_per_rank: int = Field(default=1, ge=1, description="CPU cores of each process")
    max_attempts: int = Field(default=3, ge=1, description="tries of a task before it counts as failed")
    deadline_s: float = Field(default=3600, gt=0, description="seconds that one attempt may take, per concept in it")
    storage_patience_s: float = Field(
        default=120, ge=0, description="seconds for which storage that fails is tried again before the run stops"
    )

    @property
    def ranks(self) -> int:
        """Processes of one gang."""
        return 1 if self.gpus_per_task == "auto" else max(1, round(self.gpus_per_task))

    @model_validator(mode="after")
    def check(self) -> Self:
        amount = self.gpus_per_task
        if amount != "auto" and amount > 1 and amount != int(amount):
            raise ValueError(f"gpus_per_task {amount:g} is neither a fraction of one GPU nor a whole number of them")
        return self


class DeepSpeedSettings(Section):
    stage: Literal[1, 2, 3] = Field(default=1, description="ZeRO stage: what is partitioned over the ranks of a task")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="of the computation; deltas are float32 always"
    )
    offload: Literal["none", "cpu"] = Field(
        default="none", description="where optimizer state (stage 3: also weights) lives"
    )


class BatchSpec(Section):
    """One batch: a base model, concepts, and how to erase them."""

    model: Model = Field(
        description="pocket, pocket-sd3, a folder, or a hub id with an optional @revision; {single_file, config}: a "
        "checkpoint in one file; {base, loras: [{path, scale}]}: LoRAs are fused into it first"
    )
    output: str = Field(
        default="runs/batch", min_length=1, max_length=4000, description="run directory: a folder or an fsspec URL"
    )
    seed: int = Field(default=0, ge=0, description="decides every random draw of the batch")
    method: MethodSettings = Field(default_factory=adv_anchor.Settings, description="how every concept is erased")
    method_by_kind: dict[KindName, MethodSettings] = Field(
        default={},
        description="settings that differ for a kind; with a `name`, another method with all of its settings",
    )
    concepts: tuple[Entry, ...] = Field(min_length=1, description="what to erase")
    evaluate: EvaluationSettings | None = Field(default_factory=EvaluationSettings, description="null: not at all")
    resources: Resources = Field(default_factory=Resources)
    deepspeed: DeepSpeedSettings = Field(default_factory=DeepSpeedSettings)

    @model_validator(mode="before")
    @classmethod
    def resolve_methods(cls, data: Any) -> Any:
        """Every kind's settings in full; the method that is not named is adv_anchor."""
        if not isinstance(data, Mapping):
            return data
        method = named(data.get("method", {}))
        if not isinstance(by_kind := data.get("method_by_kind", {}), Mapping):
            return {**data, "method": method}
        resolved = {kind: whole(method, own) for kind, own in by_kind.items()}
        return {**data, "method": method, "method_by_kind": resolved}

    @property
    def base(self) -> str:
        """What the model is called everywhere else: its name, or the mapping as JSON."""
        return name_of(self.model)

    def method_for(self, kind: str) -> MethodSettings:
        """The settings for concepts of a kind."""
        return self.method_by_kind.get(kind, self.method)  # type: ignore[call-overload]


def named(method: Any) -> Any:
    """Settings of a method with its name, if they are a mapping."""
    return {"name": adv_anchor.Settings.model_fields["name"].default, **method} if isinstance(method, dict) else method


def whole(method: Any, own: Any) -> Any:
    """What a kind's settings come to: `method`'s with what differs; another method inherits none of them."""
    common = method.model_dump() if isinstance(method, BaseModel) else method
    if not isinstance(own, dict) or not isinstance(common, dict):
        return named(own)
    return common | own if own.get("name", common["name"]) == common["name"] else own
