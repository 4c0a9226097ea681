"""advanchor results: the scores of a run as a table."""

import enum
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from advanchor.cli import common, live
from advanchor.cli.console import cell, console, safe, say, warn

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
    from advanchor.report.table import rows_of, to_csv
    from advanchor.rundir.store import Store

    with common.user_errors():
        store = Store(run)
        done = store.results()
        found = rows_of(store, done)
    warn(store.damaged)
    if not found:
        common.fail(f"{run} has no results: it is not a run directory, or nothing is done yet")
    if as_json or format is Format.json:
        print(json.dumps(found, indent=2))
    elif format is Format.csv:
        print(safe(to_csv(found), lines=True), end="")
    else:
        show(found)
        if line := live.weak({row["name"]: row["ua"] for row in found if row["status"] == "done"}):
            say(safe(line), "yellow")
        for line in dear_anchors(done):
            say(safe(line), "yellow")


def dear_anchors(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of finished concepts whose anchor the trained weights can hardly represent."""
    from advanchor.training.representation import Price, dear

    found = []
    for result in results:
        facts = result.get("facts") or {}
        norm, unreached = facts.get("anchor_map_norm"), facts.get("anchor_unreached")
        if isinstance(norm, int | float) and isinstance(unreached, int | float):
            price = Price(norm, unreached)
            found += [dear(str(result["concept"]["name"]), price)] if price.is_dear else []
    return found


def show(found: list[dict]) -> None:
    from advanchor.evaluation.settings import is_weak

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in COLUMNS:
        table.add_column(title, justify="left" if title in ("concept", "kind", "state") else "right")
    for row in found:
        values = [row[field] for field in COLUMNS.values()]
        if row["status"] == "done" and is_weak(row["ua"]):
            values[list(COLUMNS).index("state")] = live.WEAK
        table.add_row(*(cell(v[:40] if isinstance(v, str) else live.percent(v)) for v in values))
    console().print(table)
