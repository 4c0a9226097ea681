"""advanchor cancel and advanchor retry: take concepts out of a run, and back into it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advanchor.cli import common
from advanchor.cli.console import safe, say, warn

if TYPE_CHECKING:
    from advanchor.batch.plan import Task
    from advanchor.rundir.store import Store

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
    warn(store.damaged)
    show("cancelled", picked, as_json)


def retry(
    run: common.RunDirectory,
    names: Names = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every concept that failed.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Every concept that was cancelled.")] = False,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Every concept that `advanchor review` did not accept: again or reject.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --rejected: other settings, --set lr=2e-3.", metavar="KEY=VALUE"),
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Let failed or cancelled concepts start afresh; then `advanchor resume` or the batch itself goes on with them.

    Rejected ones are erased once more, from other random numbers.
    """
    common.quiet()
    if not names and not failed and not cancelled and not rejected:
        common.fail("say which concepts, or --failed, or --cancelled, or --rejected")
    if overrides and not rejected:
        common.fail("--set: only with --rejected; what failed is tried again as it is")
    spec, tasks, store = common.opened(run)
    with common.user_errors():
        once_more = replaced(store, tasks, overrides or []) if rejected else []
        picked = list(common.chosen(tasks, names)) if names else []
        picked += failed_tasks(store, tasks, spec.resources.max_attempts) if failed else []
        called_off = store.cancelled()
        picked += [task for task in tasks if cancelled and task.id in called_off]
        picked = list({task.id: task for task in picked}.values())
        store.forgive(picked)
        store.uncancel(task for task in picked if task.id in called_off)
    warn(store.damaged)
    show("to be tried again", picked + once_more, as_json)


def replaced(store: "Store", tasks: "list[Task]", overrides: list[str]) -> "list[Task]":
    """Put another task in the place of each that a person did not accept; returns the new ones. Raises BatchError."""
    from advanchor import methods
    from advanchor.batch.plan import again
    from advanchor.batch.spec import BatchError
    from advanchor.rundir.again import replace
    from advanchor.rundir.verdicts import REJECTED, verdicts

    judged = verdicts(store, store.results())
    rejected = [task for task in tasks if task.id in judged and judged[task.id].verdict in REJECTED]
    found = [(task, again(task, changed(task, overrides))) for task in rejected]
    problems = [f"--set: {problem}" for _, other in found for problem in methods.problems(other.method, other.concept)]
    if problems:
        raise BatchError(problems)
    for task, other in found:
        replace(store, task, other)
    return [other for _, other in found]


def changed(task: "Task", overrides: list[str]) -> Any:
    """A task's method with other settings. Raises BatchError."""
    from pydantic import ValidationError

    from advanchor.batch.file import set_override
    from advanchor.batch.spec import BatchError
    from advanchor.messages import reason

    data = task.method.model_dump(mode="json")
    for override in overrides:
        set_override(data, override.removeprefix("method."))
    if data["name"] != task.method.name or data["trained_weights"] != task.method.trained_weights:
        raise BatchError(["--set: name and trained_weights are the whole run's; erase a batch of its own for others"])
    try:
        return type(task.method).model_validate(data)
    except ValidationError as error:
        fields = [*type(task.method).model_fields]
        told = [f"--set {'.'.join(map(str, e['loc']))}: {reason(e, fields)}" for e in error.errors()]
        raise BatchError(told) from error


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
        say(f"{len(tasks)} {what}" + "".join(f"\n  {safe(task.concept.name)}" for task in tasks[:20]))
