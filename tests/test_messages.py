"""Values in messages: short, and nothing that a terminal would obey."""

import time

import pytest

from advanchor.messages import choice, field, quoted, shown

VALUES = {
    "a text": "x" * 10**7,
    "lists": [["x"] * 10**5] * 100,
    "a mapping": dict.fromkeys(range(10**4), "x" * 1000),
    "a number": 10**5000,
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_is_shortened(value: object) -> None:
    started = time.monotonic()
    assert len(quoted(value)) < 500 and len(choice(value, ("a", "b"))) < 600
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("text", ["\x1b]0;pwned\a", "a\nb", "\u202egnp.exe", "\ud800", "\x9b31m"])
def test_what_a_terminal_would_obey_is_escaped(text: str) -> None:
    for said in (quoted(text), shown(text), field(("concepts", 0, text)), choice(text, ("a", "b"))):
        assert said.isprintable()


def test_choices() -> None:
    assert choice("stlye", ("style", "object")) == "'stlye' is not one of style, object (did you mean 'style'?)"
    assert choice("1", ("1", "2")) == "'1' is a text, not one of 1, 2: write the number without quotes"
    assert choice("doses", ("scales", "seed")) == "'doses' is called 'scales' since 0.2"
    assert choice("doses", ("kind", "name")) == "'doses' is not one of kind, name"  # there it was never a word
