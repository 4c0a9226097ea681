"""The one way to the terminal for what came from a file or a person: shown as it is, never obeyed.

Control characters, escape sequences, bidirectional overrides and lone surrogates are shown escaped; nothing is markup.
"""

import unicodedata
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

OVERRIDES = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # which make text read in another order than it is written
BREAKS = {0x2028, 0x2029}
HIDDEN = ("Cc", "Cs")
MAX_NAMED = 10  # damaged files in one command's output


def safe(value: object, *, lines: bool = False) -> str:
    """A text in which nothing steers a terminal; `lines`: line feeds and tabs stay."""
    return "".join(shown(character, lines) for character in str(value))


def shown(character: str, lines: bool) -> str:
    if lines and character in "\n\t":
        return character
    code = ord(character)
    if unicodedata.category(character) in HIDDEN or code in OVERRIDES or code in BREAKS:
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return character


def cell(value: object, style: str = "") -> Text:
    """For tables and live views."""
    return Text(safe(value), style)


def console(*, stderr: bool = False) -> Console:
    """A console that takes no text for markup or emoji; give it what `safe` or `cell` returns."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say(value: object, style: str = "", *, stderr: bool = False, on: Console | None = None) -> None:
    """Print one text, of several lines perhaps."""
    (on or console(stderr=stderr)).print(Text(safe(value, lines=True), style), soft_wrap=True)


def warn(damaged: Mapping[str, str]) -> None:
    """Name files of a run directory that are damaged, on stderr."""
    for number, (name, why) in enumerate(damaged.items()):
        if number == MAX_NAMED:
            say(f"warning: and {len(damaged) - MAX_NAMED} more", "yellow", stderr=True)
            return
        text = f"warning: {name} is damaged and left out: {why}; `advanchor resume` does its task again"
        say(text, "yellow", stderr=True)
