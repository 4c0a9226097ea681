"""A batch of concepts as users write it: settings with their meaning, and errors with their place."""

import csv
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
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from advanchor import yaml_lines
from advanchor.concepts import KINDS, PRESETS, Concept, KindName, default_prompts
from advanchor.evaluation import EvaluationSettings
from advanchor.evaluation.scorers import ScorerSettings
from advanchor.explain import choice, reason
from advanchor.methods import METHODS, MethodSettings, adv_anchor


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
    """Concepts from a table with the columns name and kind."""

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
        description="concepts of equal settings that share every batch, each with its own delta and anchor; if the "
        "pack breaks, its members are tried again alone; auto: as many as pay, by a short measurement at the start",
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


def read_batch(path: Path, overrides: Sequence[str] = (), output: str | None = None) -> tuple[BatchSpec, list[Concept]]:
    """A batch file and the concepts it names, prompts filled in. Raises BatchError with every problem found."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BatchError([f"{path}: cannot be read: {error}"]) from error
    return parse_batch(text, path, overrides, output)


def parse_batch(
    text: str, path: Path, overrides: Sequence[str] = (), output: str | None = None
) -> tuple[BatchSpec, list[Concept]]:
    """As read_batch, from a text; `path` names it in errors and anchors relative paths."""
    try:
        document = yaml_lines.parse(text)
    except yaml_lines.YamlError as error:
        raise BatchError([f"{path}:{error.place[0]}:{error.place[1]}: {error}"]) from error
    if not isinstance(document.data, dict):
        raise BatchError([f"{path}:1:1: a batch is a mapping with at least model and concepts"])
    data = document.data
    for override in overrides:
        set_override(data, override)
    if output is not None:
        data["output"] = output
    if isinstance(data.get("method"), dict):
        data["method"].setdefault("name", "adv_anchor")
    try:
        spec = BatchSpec.model_validate(data)
    except ValidationError as error:
        found = [details for details in error.errors() if not (details["type"] == "too_short" and details["input"])]
        raise BatchError([explain(details, data, document, path) for details in found]) from error
    problems = []
    for kind in spec.method_by_kind:
        try:
            spec.method_for(kind)
        except ValidationError as error:
            for details in error.errors():
                details["loc"] = ("method_by_kind", kind, *details["loc"])
                problems.append(explain(details, data, document, path))
    concepts = expand(spec, document, path, problems)
    if problems:
        raise BatchError(problems)
    return spec, concepts


def located(problems: Sequence[str], path: Path) -> list[str]:
    """Problems "field: what" of a batch that has been read, with the file and the place of the field before them."""
    document = yaml_lines.parse(path.read_text())
    found = []
    for problem in problems:
        line, column = document.place(tuple(problem.partition(":")[0].split(".")))
        found.append(f"{path}:{line}:{column}: {problem}")
    return found


def set_override(data: dict[str, Any], override: str) -> None:
    """Apply "method.lr=2e-5". Raises BatchError."""
    field, separator, value = override.partition("=")
    if not separator:
        raise BatchError([f"--set {override}: has no '='; write --set method.lr=2e-5"])
    try:
        parsed = yaml_lines.parse(value).data
    except yaml_lines.YamlError as error:
        raise BatchError([f"--set {override}: {error}"]) from error
    *parents, leaf = field.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise BatchError([f"--set {override}: {parent!r} is not a section"])
    data[leaf] = parsed


def expand(spec: BatchSpec, document: yaml_lines.Document, path: Path, problems: list[str]) -> list[Concept]:
    """All concepts, with prompts; what is wrong is added to `problems`."""
    prompts = default_prompts(spec.model)
    found: list[Concept] = []
    first_place: dict[str, str] = {}
    for i, entry in enumerate(spec.concepts):
        line, column = document.place(("concepts", i))
        where = f"{path}:{line}:{column}: concepts.{i}"
        match entry:
            case Concept():
                listed: Sequence[Concept] = [entry]
            case PresetEntry():
                listed = PRESETS[entry.preset]()[: entry.count]
            case FileEntry():
                listed = read_concepts(path.parent / entry.source, where, problems)
        for concept in listed:
            if concept.name in first_place:
                problems.append(f"{where}: {concept.name!r} is already in the batch ({first_place[concept.name]})")
                continue
            first_place[concept.name] = f"concepts.{i}"
            found.append(concept.with_prompts(prompts))
    return found


def read_concepts(path: Path, where: str, problems: list[str]) -> list[Concept]:
    """Concepts of a CSV file with the columns name and kind."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if missing := {"name", "kind"} - set(table.fieldnames or ()):
                problems.append(f"{where}.from: {path}:1: has no column {', '.join(sorted(missing))}")
                return []
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{where}.from: {path} cannot be read: {error}")
        return []
    concepts = []
    for line, row in rows:
        try:
            concepts.append(Concept(name=row["name"], kind=row["kind"]))  # type: ignore[arg-type]
        except ValidationError as error:
            for details in error.errors():
                problems.append(f"{path}:{line}: {'.'.join(map(str, details['loc']))}: {reason(details, KINDS)}")
    return concepts


def fields_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def fields_at(loc: tuple[str | int, ...], data: dict[str, Any]) -> list[str]:
    """The names that a section knows, to suggest from."""
    match loc:
        case ("method" | "method_by_kind", *_):
            name = (data.get("method") or {}).get("name", "adv_anchor")
            if loc[0] == "method_by_kind":
                name = data["method_by_kind"][loc[1]].get("name", name)
            return fields_of(METHODS[name].Settings)
        case ("concepts", int(i), *_):
            return fields_of(ENTRIES[entry_tag(data["concepts"][i])])
        case ("evaluate", "scorer", *_):
            return fields_of(ScorerSettings)
        case (str(section), _, *_):
            sections = {"evaluate": EvaluationSettings, "resources": Resources, "deepspeed": DeepSpeedSettings}
            return fields_of(sections[section])
    return fields_of(BatchSpec)


def explain(details: Any, data: dict[str, Any], document: yaml_lines.Document, path: Path) -> str:
    """One of pydantic's errors as file:line:column: field: reason."""
    shown = details["loc"]
    match shown:  # without the unions' tags
        case ("method", _, *rest):
            shown = ("method", *rest)
        case ("method_by_kind", kind, str(tag), *rest) if tag in METHODS:
            shown = ("method_by_kind", kind, *rest)
        case ("concepts", int(i), _, *rest):
            shown = ("concepts", i, *rest)
    shown = tuple(part for part in shown if part != "[key]")
    line, column = document.place(shown)
    choices = fields_at(shown, data) if details["type"] == "extra_forbidden" else ()
    return f"{path}:{line}:{column}: {'.'.join(map(str, shown))}: {reason(details, choices)}"
