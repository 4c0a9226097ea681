"""A batch of concepts as users write it: its settings and what they mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    WrapValidator,
    field_validator,
    model_validator,
)

from advanchor.concepts import PRESETS, Concept, KindName
from advanchor.evaluation import EvaluationSettings
from advanchor.explain import choice
from advanchor.methods import MethodSettings, adv_anchor


class BatchError(ValueError):
    """Everything that is wrong with a batch, one line each: file:line:column: field: what and what instead."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


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

    source: Path = Field(alias="from", description="CSV file, relative to the batch file")


def entry_tag(entry: Any) -> str:
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
    if isinstance(value, int | float) and value > 0:
        return float(value)
    raise ValueError(f"{value!r} is neither auto nor a number above 0")


def count_or_auto(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and value > 0):
        return value
    raise ValueError(f"{value!r} is neither auto nor a whole number above 0")


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

    model: str = Field(min_length=1, description="pocket, a folder, or a hub id with an optional @revision")
    output: str = Field(default="runs/batch", min_length=1, description="run directory: a folder or an fsspec URL")
    seed: int = Field(default=0, ge=0, description="decides every random draw of the batch")
    method: MethodSettings = Field(default_factory=adv_anchor.Settings, description="how every concept is erased")
    method_by_kind: dict[KindName, dict[str, Any]] = Field(
        default={},
        description="settings that differ for a kind; with a `name`, another method with all of its settings",
    )
    concepts: tuple[Entry, ...] = Field(min_length=1, description="what to erase")
    evaluate: EvaluationSettings | None = Field(default_factory=EvaluationSettings, description="null: not at all")
    resources: Resources = Field(default_factory=Resources)
    deepspeed: DeepSpeedSettings = Field(default_factory=DeepSpeedSettings)

    def method_for(self, kind: str) -> MethodSettings:
        """The settings for concepts of a kind; another method inherits none of `method`'s. Raises ValidationError."""
        own = self.method_by_kind.get(kind, {})  # type: ignore[call-overload]
        if own.get("name", self.method.name) == self.method.name:
            return type(self.method).model_validate(self.method.model_dump() | own)
        return TypeAdapter(MethodSettings).validate_python(own)
