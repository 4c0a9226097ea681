"""What is wrong with a value, in words that help: the value, and what it could have been."""

import difflib
from collections.abc import Sequence
from typing import Any


def choice(value: object, choices: Sequence[str] | dict[str, Any]) -> str:
    """ "'stlye' is not one of style, object (did you mean 'style'?)"."""
    close = difflib.get_close_matches(str(value), list(choices), 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{value!r} is not one of {', '.join(choices)}{hint}"


def reason(details: Any, choices: Sequence[str]) -> str:
    """One of pydantic's errors without its place; `choices`: the fields there are, for one about an unknown field."""
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "literal_error" | "enum":
            return choice(value, [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")])
        case "union_tag_invalid":
            tag = context["tag"]
            return "name: " + choice(tag, [part.strip(" '") for part in context["expected_tags"].split(",")])
        case "extra_forbidden":
            return choice(details["loc"][-1], choices)
        case "string_type" if details["loc"][-1] == "name":
            return f"{value!r} is not a text; YAML reads some words and all digits so: put the name in quotes"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
    return f"{value!r}: {details['msg'][0].lower()}{details['msg'][1:]}"
