"""The JSON Schema of a batch, for editors: pydantic's own, made as loose as batches are about a method's name."""

import json
from pathlib import Path
from typing import Any

SCHEMA_FILE = Path(__file__).with_name("batch.schema.json")  # what `advanchor schema` prints; python -m makes it anew
TITLE = "An advanchor batch"


def batch_schema() -> dict[str, Any]:
    from advanchor.batch.spec import BatchSpec

    schema = without_names(loosened(BatchSpec.model_json_schema(by_alias=True)))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": TITLE}


def loosened(part: Any) -> Any:
    """Methods of which a batch gives some settings and no name fit several of them: anyOf in the place of oneOf."""
    if isinstance(part, list):
        return [loosened(each) for each in part]
    if not isinstance(part, dict):
        return part
    found = {key: loosened(value) for key, value in part.items() if key not in ("discriminator", "title")}
    if "oneOf" in found:
        found["anyOf"] = found.pop("oneOf")
    return found


def without_names(schema: dict[str, Any]) -> dict[str, Any]:
    """Short names of definitions: "advanchor__methods__esd__Settings" is "esd"."""
    text = json.dumps(schema)
    for name in schema["$defs"]:
        parts = name.split("__")
        if len(parts) > 1:
            text = text.replace(f'"{name}"', f'"{parts[-2]}"').replace(f"#/$defs/{name}", f"#/$defs/{parts[-2]}")
    return json.loads(text)


def dumped() -> str:
    return json.dumps(batch_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(dumped())
