"""advanchor cancel and advanchor retry: take concepts out of a run, and back into it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from advanchor.cli import common

if TYPE_CHECKING:
    from advanchor.plan import Task
    from advanchor.runtime.store import Store

Names = Annotated[list[str] | None, typer.Argument(help="Concepts, as the batch calls them.", show_default=False)]


def cancel(
    run: common.RunDirectory,
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Every concept that is not done.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Stop erasing some concepts of a run, or all, from any machine; its driver obeys within seconds."""
    common.quiet()
    if bool(names) == everything:
        common.fail("say which concepts, or --all")
    _, tasks, store = common.opened(run)
    with common.user_errors():
        done = {result["task"] for result in store.results()}
        picked = [task for task in common.chosen(tasks, names or ()) if task.id not in done]
        store.cancel(picked)
    show("cancelled", picked, as_json)


def retry(
    run: common.RunDirectory,
    names: Names = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every concept that failed.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Every concept that was cancelled.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Let failed or cancelled concepts start afresh; then `advanchor resume` or the batch itself goes on with them."""
    common.quiet()
    if not names and not failed and not cancelled:
        common.fail("say which concepts, or --failed, or --cancelled")
    spec, tasks, store = common.opened(run)
    with common.user_errors():
        picked = list(common.chosen(tasks, names)) if names else []
        picked += failed_tasks(store, tasks, spec.resources.max_attempts) if failed else []
        called_off = store.cancelled()
        picked += [task for task in tasks if cancelled and task.id in called_off]
        picked = list({task.id: task for task in picked}.values())
        store.forgive(picked)
        store.uncancel(task for task in picked if task.id in called_off)
    show("to be tried again", picked, as_json)


def failed_tasks(store: "Store", tasks: "list[Task]", max_attempts: int) -> "list[Task]":
    from advanchor.runtime.policy import recalled

    attempts, done = store.attempts(), {result["task"] for result in store.results()}
    return [
        task
        for task in tasks
        if task.id not in done and recalled(attempts.get(task.folder, ()), max_attempts).status == "failed"
    ]


def show(what: str, tasks: "list[Task]", as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"id": task.id, "name": task.concept.name} for task in tasks], indent=2))
    else:
        print(f"{len(tasks)} {what}" + "".join(f"\n  {task.concept.name}" for task in tasks[:20]))
