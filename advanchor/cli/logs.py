"""advanchor logs: what happened in a run, attempt by attempt."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advanchor.cli import common
from advanchor.cli.console import safe, say, warn

if TYPE_CHECKING:
    from advanchor.batch.plan import Task
    from advanchor.rundir.store import Store


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
    warn(store.damaged)
    if as_json:
        print(json.dumps(records, indent=2))
        return
    for record in records:
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["ended_at"]))
        took = f"{record['ended_at'] - record['started_at']:.0f} s"
        line = f"{ended}  {record['name']}: {record['event'].lower()}, now {record['then']}"
        line += f" ({took}, gang {record['gang']} on {record['node']})"
        line += f": {record['reason']}" if record["reason"] else ""
        say(safe(line))
        if names and record["details"]:
            say(record["details"], "dim")


def attempts(store: "Store", tasks: "list[Task]") -> list[dict[str, Any]]:
    by_folder = {task.folder: task for task in tasks}
    found = []
    for folder, record in store.every_attempt():
        if task := by_folder.get(folder):
            found.append({"name": task.concept.name, "id": task.id, **record})
    return sorted(found, key=lambda record: record["ended_at"])
