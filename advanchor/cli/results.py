"""advanchor results: the scores of a run as a table."""

import enum
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from advanchor.cli import common, live

COLUMNS = {
    "concept": "name",
    "kind": "kind",
    "state": "status",
    "UA": "ua",
    "IRA": "ira",
    "CRA": "cra",
    "base IRA": "base_ira",
    "base CRA": "base_cra",
}


class Format(enum.StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


def results(
    run: common.RunDirectory,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print them.")] = Format.table,  # noqa: A002
    as_json: common.AsJson = False,
) -> None:
    """Show every concept's scores."""
    from advanchor.report.table import rows, to_csv
    from advanchor.runtime.status import STATUS_FILE
    from advanchor.runtime.store import Store

    store = Store(run)
    found = rows(store.results(), store.read_json(STATUS_FILE))
    if not found:
        common.fail(f"{run} has no results: it is not a run directory, or nothing is done yet")
    if as_json or format is Format.json:
        print(json.dumps(found, indent=2))
    elif format is Format.csv:
        print(to_csv(found), end="")
    else:
        show(found)


def show(found: list[dict]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in COLUMNS:
        table.add_column(title, justify="left" if title in ("concept", "kind", "state") else "right")
    for row in found:
        values = (row[field] for field in COLUMNS.values())
        table.add_row(*(Text(v[:40] if isinstance(v, str) else live.percent(v)) for v in values))
    Console().print(table)
