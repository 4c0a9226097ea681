"""Tables of concepts: CSV files with the columns name, kind and, where there is one, similar."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advanchor.batch.sources import MAX_TABLE, SourceError, read_text
from advanchor.concepts import KINDS, Concept
from advanchor.messages import choice, field, quoted, reason, shown

REQUIRED, COLUMNS = ("name", "kind"), ("name", "kind", "similar")
REMARK = "#"  # a column whose title begins so is for people

Row = tuple[str, Concept]  # where it stands, "artists.csv:7"


def read_table(path: Path, problems: list[str]) -> list[Row]:
    """The concepts of a table; what is wrong with its rows is added to `problems`, file:line each.

    Raises SourceError for a file that is no table.
    """
    (number, head), *rows = list(numbered(read_text(path, MAX_TABLE, regular=True), path)) or [(1, [])]
    if found := head_problems(head):
        raise SourceError(f"{shown(path)}:{number}: {'; '.join(found)}")
    concepts = []
    for number, cells in rows:
        where = f"{shown(path)}:{number}"
        if found := row_problems(head, cells):
            problems += [f"{where}: {problem}" for problem in found]
        else:
            concepts.append((where, Concept.model_validate(named(head, cells))))
    return concepts


def numbered(text: str, path: Path, divider: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with the number of the line where each ends. Raises SourceError."""
    table = csv.reader(io.StringIO(text, newline=""), delimiter=divider)
    try:
        yield from ((table.line_num, row) for row in table if row)
    except csv.Error as error:
        raise SourceError(f"{shown(path)}:{table.line_num}: cannot be read: {error}") from error


def head_problems(head: Sequence[str]) -> list[str]:
    """What is wrong with the first line, which names the columns."""
    if missing := [column for column in REQUIRED if column not in head]:
        listed = f"has no column {', '.join(missing)}; a table begins with the line name,kind"
        if not set(head) & set(COLUMNS):
            listed += f" (here it begins with {quoted(','.join(head))}), then one concept a line: Van Gogh,style"
        return [listed]
    found = [f"the column {quoted(column)} stands here twice" for column in COLUMNS if head.count(column) > 1]
    for column in head:
        if column not in COLUMNS and not column.startswith(REMARK):
            in_batch = column in Concept.model_fields
            hint = "it can be given in the batch file only" if in_batch else "a title that begins with # is not read"
            found.append(f"the column {choice(column, COLUMNS)}: {hint}")
    return found


def row_problems(head: Sequence[str], cells: Sequence[str]) -> list[str]:
    if len(cells) > len(head):
        return [f"has {len(cells)} cells under {len(head)} columns: put a name with a comma in double quotes"]
    return concept_problems(named(head, cells))


def concept_problems(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong with a concept, "field: what" each."""
    try:
        Concept.model_validate(fields)
    except ValidationError as error:
        return [f"{field(details['loc'])}: {reason(details, KINDS)}" for details in error.errors()]
    return []


def named(head: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """A row's cells by column; those at its end may be missing."""
    return {column: cell for column, cell in zip(head, cells, strict=False) if column in COLUMNS}
