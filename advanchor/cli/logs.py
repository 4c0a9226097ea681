"""advanchor logs: what happened in a run, attempt by attempt."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from advanchor.cli import common

if TYPE_CHECKING:
    from advanchor.plan import Task
    from advanchor.runtime.store import Store


def logs(
    run: common.RunDirectory,
    names: Annotated[list[str] | None, typer.Argument(help="Only these concepts.", show_default=False)] = None,
    as_json: common.AsJson = False,
) -> None:
    """Show every attempt of a run in the order in which they ended; of named concepts, with the errors in full."""
    common.quiet()
    _, tasks, store = common.opened(run)
    with common.user_errors():
        records = attempts(store, common.chosen(tasks, names or ()))
    if as_json:
        print(json.dumps(records, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("ended", "concept", "gang", "node", "s", "what", "then", "why"):
        table.add_column(title, justify="right" if title in ("gang", "s") else "left", no_wrap=title != "why")
    for record in records:
        ended = time.strftime("%m-%d %H:%M:%S", time.localtime(record["ended_at"]))
        seconds = f"{record['ended_at'] - record['started_at']:.0f}"
        where = (str(record["gang"]), record["node"][:24], seconds)
        cells = (ended, record["name"][:28], *where, record["event"].lower(), record["then"], record["reason"])
        table.add_row(*map(Text, cells))
    console = Console()
    console.print(table)
    for record in records if names else ():
        if record["details"]:
            text = f"\n{record['name']}, gang {record['gang']}:\n{record['details']}"
            console.print(text, markup=False, highlight=False)


def attempts(store: "Store", tasks: "list[Task]") -> list[dict[str, Any]]:
    by_folder = {task.folder: task for task in tasks}
    found = []
    for path, record in store.all("tasks", "*", "attempts", "*.json"):
        if task := by_folder.get(path.split("/")[1]):
            found.append({"name": task.concept.name, "id": task.id, **record})
    return sorted(found, key=lambda record: record["ended_at"])
