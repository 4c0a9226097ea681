"""Reading a batch file, once: its settings, its concepts, and everything that is wrong with it, each with its place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advanchor.batch import explain, yaml_lines
from advanchor.batch.explain import Problem
from advanchor.batch.presets import PRESETS
from advanchor.batch.sources import MAX_BATCH, SourceError, read_text
from advanchor.batch.spec import BatchError, BatchSpec, FileEntry, PresetEntry
from advanchor.batch.table import read_table
from advanchor.concepts import Concept
from advanchor.messages import quoted, shown

MAX_PARTS = 10  # of a key in --set
UNKNOWN = "?"  # a base's name that none has, where the batch's own cannot be read


@dataclass(frozen=True)
class Batch:
    """One reading of a batch file."""

    path: Path
    text: str
    spec: BatchSpec
    concepts: list[Concept]  # of all entries, in order; without the prompts that `plan` fills in
    source: "Source"
    origins: list[str]  # where each concept stands: "batch.yaml:3:5: concepts.0", "artists.csv:7"

    def located(self, problems: Iterable[str]) -> list[str]:
        """Problems "field: what" with file, line and column; "concepts.3" there is the fourth of `concepts`."""
        return [self.locate(problem) for problem in problems]

    def locate(self, problem: str) -> str:
        name, _, what = problem.partition(": ")
        match name.split("."):
            case ["concepts", number, *_]:
                return f"{self.origins[int(number)]}: {what}"
            case parts:
                return f"{self.source.where(tuple(parts))}: {problem}"


@dataclass(frozen=True)
class Source:
    """Where everything in a batch comes from: a place in the file, or an option."""

    path: Path
    document: yaml_lines.Document
    options: dict[yaml_lines.Path, str] = field(default_factory=dict)  # what stands in the place of the file's own

    def where(self, path: yaml_lines.Path) -> str:
        for length in range(len(path), 0, -1):
            if option := self.options.get(path[:length]):
                return option
        line, column = self.document.place(path)
        return f"{shown(self.path)}:{line}:{column}"

    def lines(self, problems: Iterable[Problem]) -> list[str]:
        return [explain.line(self.where(path), (path, what)) for path, what in problems]


def read_batch(
    path: Path, overrides: Sequence[str] = (), output: str | None = None, *, model: str | None = None
) -> Batch:
    """A batch file and the concepts it names. Raises BatchError with every problem found."""
    try:
        text = read_text(path, MAX_BATCH)
    except SourceError as error:
        raise BatchError([str(error)]) from error
    return parse_batch(text, path, overrides, output, model=model)


def parse_batch(
    text: str, path: Path, overrides: Sequence[str] = (), output: str | None = None, *, model: str | None = None
) -> Batch:
    """As read_batch, from a text; `path` names it in errors and anchors relative paths.

    model: the base where the batch names none.
    """
    try:
        document = yaml_lines.parse(text)
    except yaml_lines.YamlError as error:
        raise BatchError([f"{shown(path)}:{error.place[0]}:{error.place[1]}: {error}"]) from error
    if not isinstance(document.data, dict):
        raise BatchError([f"{shown(path)}:1:1: a batch is a mapping with at least model and concepts"])
    data, source = dict(document.data), Source(path, document)
    problems = apply_options(data, source, overrides, output)
    if model is not None:
        data.setdefault("model", model)
    try:
        spec = BatchSpec.model_validate(data)
        numbers = list(range(len(spec.concepts)))
    except ValidationError as error:
        problems += source.lines(explain.problems(error.errors(), data))
        spec, numbers = readable(data, error.errors())
        if spec is None:
            raise BatchError(problems) from error
    concepts, origins = expand(zip(numbers, spec.concepts, strict=True), source, problems)
    batch = Batch(path, text, spec, concepts, source, origins)
    if problems:
        raise BatchError(problems, batch)
    return batch


def readable(data: dict[str, Any], errors: Iterable[Any]) -> tuple[BatchSpec | None, list[int]]:
    """The settings and entries without an error, and the numbers of those entries; None if that makes no batch."""
    bad = {details["loc"][:1] for details in errors} | {details["loc"][:2] for details in errors}
    entries = data["concepts"] if isinstance(data.get("concepts"), list) else []
    numbers = [i for i in range(len(entries)) if ("concepts", i) not in bad]
    kept = {key: value for key, value in data.items() if (key,) not in bad}
    if ("method",) in bad:
        kept.pop("method_by_kind", None)
    kept |= {"model": kept.get("model", UNKNOWN), "concepts": [entries[i] for i in numbers]}
    try:
        return BatchSpec.model_validate(kept), numbers
    except ValidationError:
        return None, []


def apply_options(data: dict[str, Any], source: Source, overrides: Sequence[str], output: str | None) -> list[str]:
    """Put options in the place of what the file says; returns what is wrong with them."""
    problems = []
    for override in overrides:
        try:
            source.options[set_override(data, override)] = f"--set {shown(override)}"
        except BatchError as error:
            problems += error.problems
    if output is not None:
        data["output"] = output
        source.options["output",] = f"--output {shown(output)}"
    return problems


def set_override(data: dict[str, Any], override: str) -> yaml_lines.Path:
    """Apply "method.lr=2e-5"; returns the path of what has changed. Raises BatchError."""
    option = f"--set {shown(override)}"
    key, separator, value = override.partition("=")
    if not separator:
        raise BatchError([f"{option}: has no '='; write --set method.lr=2e-5"])
    if len(path := tuple(key.split("."))) > MAX_PARTS:
        raise BatchError([f"{option}: no setting has so many parts"])
    try:
        parsed = yaml_lines.parse(value).data
    except yaml_lines.YamlError as error:
        raise BatchError([f"{option}: {error}"]) from error
    *parents, leaf = path
    for parent in parents:
        below = data.get(parent, {})
        if not isinstance(below, dict):
            raise BatchError([f"{option}: {quoted(parent)} is not a section"])
        data[parent] = data = dict(below)  # a copy: aliases share what they stand for
    data[leaf] = parsed
    return path


def expand(
    entries: Iterable[tuple[int, Concept | PresetEntry | FileEntry]], source: Source, problems: list[str]
) -> tuple[list[Concept], list[str]]:
    """All concepts of numbered entries, and where each stands; what is wrong is added to `problems`."""
    found: list[Concept] = []
    origins: list[str] = []
    first: dict[str, str] = {}
    for i, entry in entries:
        where = f"{source.where(('concepts', i))}: concepts.{i}"
        for origin, concept in listed(entry, source.path.parent, where, problems):
            if concept.name in first:
                problems.append(f"{origin}: {quoted(concept.name)} is already in the batch ({first[concept.name]})")
                continue
            first[concept.name] = f"concepts.{i}" if origin == where else origin
            found.append(concept)
            origins.append(origin)
    return found, origins


def listed(
    entry: Concept | PresetEntry | FileEntry, folder: Path, where: str, problems: list[str]
) -> Sequence[tuple[str, Concept]]:
    """The concepts of an entry, each with its origin."""
    match entry:
        case PresetEntry():
            return [(where, concept) for concept in PRESETS[entry.preset]()[: entry.count]]
        case FileEntry():
            try:
                return read_table(folder / entry.source, problems)
            except SourceError as error:
                problems.append(f"{where}.from: {error}")
                return []
    return [(where, entry)]
