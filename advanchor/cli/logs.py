"""advanchor logs: what happened in a run, attempt by attempt."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

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
    console = Console()
    for record in records:
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["ended_at"]))
        took = f"{record['ended_at'] - record['started_at']:.0f} s"
        line = f"{ended}  {record['name']}: {record['event'].lower()}, now {record['then']}"
        line += f" ({took}, gang {record['gang']} on {record['node']})"
        line += f": {record['reason']}" if record["reason"] else ""
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        if names and record["details"]:
            console.print(record["details"], style="dim", markup=False, highlight=False, soft_wrap=True)


def attempts(store: "Store", tasks: "list[Task]") -> list[dict[str, Any]]:
    by_folder = {task.folder: task for task in tasks}
    found = []
    for path, record in store.all("tasks", "*", "attempts", "*.json"):
        if task := by_folder.get(path.split("/")[1]):
            found.append({"name": task.concept.name, "id": task.id, **record})
    return sorted(found, key=lambda record: record["ended_at"])
