"""advanchor erase and advanchor resume: the main job."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from advanchor.cli import common, live

if TYPE_CHECKING:
    from advanchor.plan import Task
    from advanchor.runtime.drive import Place
    from advanchor.runtime.status import RunStatus
    from advanchor.runtime.store import Store
    from advanchor.spec import BatchSpec

Local = Annotated[bool, typer.Option("--local", help="In this process, without Ray and DeepSpeed.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster to join (default: RAY_ADDRESS, or a local Ray).")]
Insecure = Annotated[bool, typer.Option("--insecure-no-token", help="Join another machine without a token.")]


def erase(
    batch: common.BatchFile,
    overrides: common.Overrides = None,
    output: common.Output = None,
    local: Local = False,
    address: Address = None,
    insecure_no_token: Insecure = False,
    as_json: common.AsJson = False,
) -> None:
    """Erase every concept of a batch. Running it again goes on where it stopped and skips what is done."""
    spec, tasks = common.planned(batch, overrides, output)
    from advanchor.plan import dump_plan
    from advanchor.runtime.drive import Place
    from advanchor.runtime.store import Store

    with common.user_errors():
        store = Store(spec.output, spec.resources.storage_patience_s)
        store.keep_plan(batch.read_text(), overrides or [], dump_plan(spec, tasks))
    run(spec, tasks, store, Place(local, address, insecure_no_token), as_json)


def resume(
    run_directory: common.RunDirectory,
    local: Local = False,
    address: Address = None,
    insecure_no_token: Insecure = False,
    as_json: common.AsJson = False,
) -> None:
    """Go on with a run from its directory alone, on any machine; the batch file is not needed."""
    common.quiet()
    from advanchor.runtime.drive import Place

    spec, tasks, store = common.opened(run_directory)
    run(spec, tasks, store, Place(local, address, insecure_no_token), as_json)


def run(spec: "BatchSpec", tasks: "list[Task]", store: "Store", place: "Place", as_json: bool) -> None:
    """Do what is left to do, write the report, exit."""
    from advanchor.report.html import write_report
    from advanchor.runtime.drive import ClusterError, drive

    console = Console()
    if (other := working_driver(store)) and not as_json:
        console.print(
            f"another driver ({other}) is at work on this run: nothing breaks, but work is done twice", style="yellow"
        )
    with live.progress(as_json, console) as view:
        try:
            status = drive(spec, tasks, store, view, place)
        except ClusterError as error:
            common.fail(str(error))
    if status.state == "stopped":
        common.fail(f"the run has stopped: {status.note}; what is done is kept, the same command goes on", 1)
    with common.user_errors():
        write_report(store)
    if not as_json:
        show_end(console, status, store)
    raise typer.Exit(status.exit_code)


def working_driver(store: "Store") -> str:
    """Host and process of a driver that has written to this run within the last seconds."""
    from advanchor.runtime.status import STATUS_FILE, RunStatus

    content = store.read_json(STATUS_FILE)
    status = RunStatus.from_json(content) if content else None
    return status.driver if status and status.state == "running" and not status.is_stale else ""


def show_end(console: Console, status: "RunStatus", store: "Store") -> None:
    console.print(live.table(status))
    console.print(f"{live.summary(status)}", style="dim", highlight=False)
    for row in status.tasks:
        if row.status == "failed":
            console.print(
                f"failed: {row.name}: {row.reason}", style="red", markup=False, highlight=False, soft_wrap=True
            )
    if any(row.status in ("failed", "cancelled") for row in status.tasks):
        console.print(f"to try these again: advanchor retry {store.url} --failed --cancelled", highlight=False)
    console.print(f"report: {store.path('report', 'index.html')}", markup=False, highlight=False, soft_wrap=True)
