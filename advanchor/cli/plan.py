"""advanchor plan: what a batch would do."""

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from advanchor.cli import common


def plan(
    batch: common.BatchFile,
    overrides: common.Overrides = None,
    output: common.Output = None,
    as_json: common.AsJson = False,
) -> None:
    """Show the tasks of a batch and an estimate of their cost. Nothing is erased and nothing is written."""
    spec, tasks = common.planned(batch, overrides, output)
    from advanchor.estimate import estimate
    from advanchor.runtime.store import Store

    store = Store(spec.output)
    done = {task.id for task in tasks if store.result(task)}
    cost = estimate(spec, [task for task in tasks if task.id not in done])
    if as_json:
        listed = [{"id": t.id, "name": t.concept.name, "kind": t.concept.kind, "done": t.id in done} for t in tasks]
        print(json.dumps({"output": store.url, "tasks": listed, "estimate": cost.to_json()}, indent=2))
        return
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("concept", "kind", "method", "templates", "task", "state"):
        table.add_column(column)
    for task in tasks:
        cells = (task.concept.name[:40], task.concept.kind, task.method.name, str(len(task.concept.templates)), task.id)
        table.add_row(*(Text(cell) for cell in cells), Text("done" if task.id in done else "to do"))
    console.print(table)
    console.print(f"{len(tasks)} tasks, {len(done)} of them done, into {store.url}", highlight=False, soft_wrap=True)
    console.print(cost.sentence(), highlight=False, soft_wrap=True)
