"""What is wrong with a value, in words that help: the value, and what it could have been.

Values come from anybody, so they are shortened, and what a terminal would obey is escaped.
"""

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LENGTH = 80  # characters of a value in a message
RENAMED = {  # since 0.1: keys and names of batches
    "control": "no_op",
    "doses": "scales",  # of evaluate
    "invariants": "retain_empty",  # of speed
    "preserve": "retain",  # of uce
    "preserve_weight": "retain_weight",  # of uce; that of training is still called so
    "retune": "continue_from",
    "strength": "scale",  # of speed
}


class Short(reprlib.Repr):
    """repr of values of any size and depth, in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 2, 4, 4, 4
        self.maxstring = self.maxother = self.maxlong = LENGTH

    def repr_int(self, x: int, level: int) -> str:
        """Python writes out no more than 4300 digits."""
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"a number of {x.bit_length()} bits"


SHORT = Short()


def quoted(value: object) -> str:
    """repr, shortened; control characters, bidi marks and lone surrogates are escaped."""
    return SHORT.repr(value)


def shown(text: object) -> str:
    """A text as it is if it is short and printable, or else quoted: for names of fields and files."""
    text = str(text)
    return text if len(text) <= 4 * LENGTH and text.isprintable() else quoted(text)


def field(parts: Iterable[object]) -> str:
    """A field's name, "concepts.0.kind"."""
    return ".".join(map(shown, parts))


def choice(value: object, choices: Sequence[str] | Mapping[str, Any]) -> str:
    """ "'stlye' is not one of style, object (did you mean 'style'?)"."""
    listed, text = ", ".join(choices), value[:LENGTH] if isinstance(value, str) else quoted(value)
    if isinstance(value, str) and value in choices:  # of numbers, that is
        return f"{quoted(value)} is a text, not one of {listed}: write the number without quotes"
    if (new := RENAMED.get(text)) in choices:
        return f"{quoted(value)} is called {new!r} since 0.2"
    close = difflib.get_close_matches(text, list(choices), 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{quoted(value)} is not one of {listed}{hint}"


def reason(details: Any, choices: Sequence[str]) -> str:
    """One of pydantic's errors without its place; `choices`: the fields there are, for one about an unknown field."""
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "literal_error" | "enum":
            return choice(value, [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")])
        case "union_tag_invalid":
            return "name: " + choice(context["tag"], [part.strip(" '") for part in context["expected_tags"].split(",")])
        case "extra_forbidden":
            return choice(details["loc"][-1], choices)
        case "string_type" if details["loc"][-1] == "name":
            return f"{quoted(value)} is not a text; YAML reads some words and all digits so: put the name in quotes"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
    return f"{quoted(value)}: {details['msg'][0].lower()}{details['msg'][1:]}"
