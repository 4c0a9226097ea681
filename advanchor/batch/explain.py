"""What pydantic says of a batch, as lines that name the field as the user wrote it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from advanchor.batch.spec import ENTRIES, BatchSpec, DeepSpeedSettings, Resources
from advanchor.batch.yaml_lines import Path
from advanchor.evaluation.settings import EvaluationSettings, ScorerSettings
from advanchor.messages import field, reason
from advanchor.methods import METHODS
from advanchor.models.naming import FORMS, Lora

Problem = tuple[Path, str]  # where in the batch: what


def problems(errors: Iterable[Any], data: Mapping[str, Any]) -> list[Problem]:
    """pydantic's errors about a batch whose content is `data`, each once."""
    found = [
        (field_of(details["loc"]), reason(details, choices(details)))
        for details in errors
        if not (details["type"] == "too_short" and details["input"])  # the entries have errors of their own
        and not is_inherited(details, data)
    ]
    return list(dict.fromkeys(found))


def field_of(loc: Path) -> Path:
    """A field as it stands in the file: without the tags of unions."""
    match loc:
        case ("method", str(tag), *rest) if tag in METHODS:
            loc = ("method", *rest)
        case ("method_by_kind", kind, str(tag), *rest) if tag in METHODS:
            loc = ("method_by_kind", kind, *rest)
        case ("concepts", int(i), str(tag), *rest) if tag in ENTRIES:
            loc = ("concepts", i, *rest)
        case ("model", str(_), "base", str(_), *rest):
            loc = ("model", "base", *rest)
        case ("model", str(_), *rest):
            loc = ("model", *rest)
    return tuple(part for part in loc if part != "[key]")


def is_inherited(details: Any, data: Mapping[str, Any]) -> bool:
    """Whether an error of a kind's settings is about what stands in `method`, which has the same error."""
    match details["loc"]:
        case ("method_by_kind", kind):
            key = "name"  # of no method that there is
        case ("method_by_kind", kind, _, key, *_):
            pass
        case _:
            return False
    own = data["method_by_kind"].get(kind) if isinstance(data["method_by_kind"], dict) else None
    return isinstance(own, dict) and key not in own and details["type"] != "missing"


def choices(details: Any) -> Sequence[str]:
    """For an unknown field: those that there are."""
    if details["type"] != "extra_forbidden":
        return ()
    match details["loc"]:
        case ("method", str(tag), _) | ("method_by_kind", _, str(tag), _):
            return fields_of(METHODS[tag].Settings)
        case ("concepts", int(), str(tag), _):
            return fields_of(ENTRIES[tag])
        case ("model", _, "loras", _, _):
            return fields_of(Lora)
        case ("model", "loras", "base", str(tag), _) | ("model", str(tag), _) if tag in FORMS:
            return fields_of(FORMS[tag])
        case ("evaluate", "scorer", _):
            return fields_of(ScorerSettings)
        case (str(section), _) if section in SECTIONS:
            return fields_of(SECTIONS[section])
    return fields_of(BatchSpec)


SECTIONS: dict[str, type[BaseModel]] = {
    "evaluate": EvaluationSettings,
    "resources": Resources,
    "deepspeed": DeepSpeedSettings,
}


def fields_of(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def line(where: str, problem: Problem) -> str:
    """file:line:column: field: what."""
    path, what = problem
    return f"{where}: {field(path)}: {what}" if path else f"{where}: {what}"
