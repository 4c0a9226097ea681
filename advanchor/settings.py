"""What every group of settings has in common: unknown keys are refused, numbers are numbers, and finite."""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from advanchor.messages import quoted

LARGEST = 2**63 - 1  # of whole numbers: what fits in 64 bits, as PyTorch and other readers of JSON want it


def check_numbers(schema: Any) -> None:
    """Put `checked_number` before whatever reads a number in a schema, in place."""
    parts: list[tuple[Any, Any]] = list(schema.items() if isinstance(schema, dict) else enumerate(schema))
    for key, part in parts:
        if key in ("config", "default", "metadata"):
            continue
        if isinstance(part, dict) and is_numeric(part):
            schema[key] = core_schema.no_info_before_validator_function(checked_number, part)  # pyright: ignore[reportArgumentType]
        elif isinstance(part, dict) and part.get("type") == "model":
            continue  # a Section itself
        elif isinstance(part, dict | list):
            check_numbers(part)


def is_numeric(schema: dict[str, Any]) -> bool:
    if schema.get("type") == "literal":
        return any(isinstance(value, int) and not isinstance(value, bool) for value in schema["expected"])
    return schema.get("type") in ("int", "float")


def checked_number(value: Any) -> Any:
    """Python takes true for 1, and pydantic whole numbers of any size. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{quoted(value)} is too large a number")
    return value


class Section(BaseModel):
    """Settings as users write them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Checks every number of the model, also those in its lists and mappings."""
        schema = handler(source)
        own: Any = handler.resolve_ref_schema(schema)
        while own["type"] != "model":  # within its validators
            own = own["schema"]
        check_numbers(own["schema"])
        return schema
