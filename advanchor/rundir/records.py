"""What the files of a run directory must be to be used: whoever wrote them may have been anybody."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from advanchor.batch.plan import ID_LENGTH, slug
from advanchor.concepts import Concept

MAX_TIME = 253402300799  # the end of the year 9999, in seconds since 1970
SCORES = (
    "ua", "ira", "cra", "cra_with", "cra_without", "hinted", "unasked",
    "alignment", "diversity", "frechet", "degradation", "clip_score",
)  # fmt: skip
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Time = Annotated[float, Field(ge=0, le=MAX_TIME, strict=True)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Stem = Annotated[str, Field(pattern=r"^[a-z_]+$")]


def numbers_or_none(scores: Any) -> Any:
    """Raises ValueError if one of the scores that are shown, here or of the base, is no number."""
    if not isinstance(scores, dict):
        raise ValueError("scores are no object")
    base, counts = scores.get("base") or {}, scores.get("num_images") or {}
    if not isinstance(base, dict) or not isinstance(counts, dict):
        raise ValueError("scores.base or scores.num_images is no object")
    for name in SCORES:
        for value in (scores.get(name), base.get(name)):
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise ValueError(f"score {name!r} is no number")
    return scores


Scores = Annotated[dict[str, Any], BeforeValidator(numbers_or_none)]


class Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class FileEntry(Record):
    """A file of a finished task, named by its content."""

    name: str = Field(pattern=r"^[a-z_]+-[0-9a-f]{16}\.[a-z]+$")
    sha256: Sha256
    bytes: int = Field(ge=0)


class MethodRecord(Record):
    name: str
    trained_weights: str = ""


class Result(Record):
    """result.json."""

    task: str = Field(pattern=rf"^[0-9a-f]{{{ID_LENGTH}}}$")
    base: str
    base_digest: str
    concept: Concept
    method: MethodRecord
    seed: int
    scores: Scores | None
    scores_key: str | None
    seconds: dict[str, Number]
    files: dict[Stem, FileEntry]
    facts: dict[str, Any] = {}
    provenance: dict[str, Any] = {}


class Attempt(Record):
    """attempts/*.json."""

    event: Literal["Succeeded", "Broke", "Refused", "Cancelled", "Interrupted"]
    started_at: Time
    ended_at: Time = 0.0
    gang: int = 0
    node: str = ""
    reason: str = ""
    then: str = ""
    charged: bool = False
    packed: bool = False
    details: str = ""


class Forgiven(Record):
    """forgiven.json."""

    at: Time


RESULT, ATTEMPT, FORGIVEN = TypeAdapter(Result), TypeAdapter(Attempt), TypeAdapter(Forgiven)


def checked(content: Any, kind: TypeAdapter) -> Any:
    """The content, made into a record. Raises ValueError, in a few words."""
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:120]}") from error


def checked_result(content: Any, folder: str) -> dict[str, Any]:
    """A result that lies in the folder of its task. Raises ValueError."""
    checked(content, RESULT)
    if folder != folder_of(content):
        raise ValueError(f"it belongs into {folder_of(content)}")
    return content


def folder_of(result: Mapping[str, Any]) -> str:
    """The name of a task's folder, from its result."""
    return f"{slug(result['concept']['name'])}-{result['task']}"
