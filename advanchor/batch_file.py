"""Reading a batch file: settings and concepts, and everything that is wrong with it, each with its place."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from advanchor import yaml_lines
from advanchor.concepts import KINDS, PRESETS, Concept, default_prompts
from advanchor.evaluation import EvaluationSettings
from advanchor.evaluation.scorers import ScorerSettings
from advanchor.explain import reason
from advanchor.methods import METHODS
from advanchor.spec import (
    ENTRIES,
    BatchError,
    BatchSpec,
    DeepSpeedSettings,
    FileEntry,
    PresetEntry,
    Resources,
    entry_tag,
)


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
    """Concepts of a CSV file with the columns name and kind, and similar if it has that."""
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
            known = {"name": row["name"], "kind": row["kind"], "similar": row.get("similar") or ""}
            concepts.append(Concept.model_validate(known))
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
