"""Texts from spreadsheets and editors: which encoding they are in, or why they are no text."""

import codecs
from pathlib import Path

from advanchor.batch.sources import SourceError
from advanchor.messages import quoted, shown

MARKS = (  # byte order marks; UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig", ""),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"), (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"), (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)  # fmt: skip
NO_TEXT = {  # how files begin that people take for lists
    b"PK\x03\x04": "a spreadsheet or another zip file: save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file: save the sheet as CSV (UTF-8)",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "packed by gzip: unpack it first",
}
WESTERN = "cp1252"  # what Excel writes in Western Europe and America; Latin-1 and some more
MANY = 0.3  # of every other byte that is zero: UTF-16 of a Western language


def decoded(data: bytes, path: Path, encoding: str = "") -> tuple[str, str]:
    """The text, and a note where its encoding had to be found out. Raises SourceError, in one line.

    encoding: what the user says it is.
    """
    if encoding:
        return told(data, path, encoding), ""
    for start, what in NO_TEXT.items():
        if data.startswith(start):
            raise SourceError(f"{shown(path)}: is no text but {what}")
    for mark, codec, name in MARKS:
        if data.startswith(mark):
            return told(data, path, codec), f"read as {name}" if name else ""
    if b"\0" in data:
        return without_mark(data, path)
    try:
        return data.decode(), ""
    except UnicodeDecodeError as error:
        return western(data, path, error.start)


def told(data: bytes, path: Path, encoding: str) -> str:
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise SourceError(f"--encoding {shown(encoding)}: Python knows no such text encoding") from error
    except (UnicodeError, ValueError) as error:
        raise SourceError(f"{shown(path)}: cannot be read as {shown(encoding)}: {shown(error)}") from error


def without_mark(data: bytes, path: Path) -> tuple[str, str]:
    """UTF-16 by where its zero bytes are."""
    half = max(len(data) // 2, 1)
    little, big = (data[start::2].count(0) / half for start in (1, 0))
    if max(little, big) < MANY or min(little, big) > MANY / 10:
        raise SourceError(f"{shown(path)}: has zero bytes: it is no text, or say --encoding")
    name = "utf-16-le" if little > big else "utf-16-be"
    return told(data, path, name), f"read as {name.upper()}, by its zero bytes"


def western(data: bytes, path: Path, position: int) -> tuple[str, str]:
    """Neither UTF-8 nor UTF-16; the line that shows it stands in the note, so that people see what became of it."""
    number = data.count(b"\n", 0, position) + 1
    try:
        text = data.decode(WESTERN)
    except UnicodeDecodeError as error:
        byte = quoted(data[error.start : error.start + 1])
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(
            f"{shown(path)}:{line}: {byte} is neither UTF-8 nor Windows-1252: say --encoding, or save it as UTF-8"
        ) from error
    line = text.splitlines()[number - 1] if len(text.splitlines()) >= number else text[-80:]
    return text, f"not UTF-8: read as Windows-1252, line {number} is {quoted(line)}; else say --encoding"
