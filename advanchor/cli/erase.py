"""advanchor erase: the main job."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from advanchor.cli import common, live

if TYPE_CHECKING:
    from advanchor.plan import Task
    from advanchor.runtime.status import RunStatus, View
    from advanchor.runtime.store import Store
    from advanchor.spec import BatchSpec


def erase(
    batch: common.BatchFile,
    overrides: common.Overrides = None,
    output: common.Output = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray and DeepSpeed.")] = False,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to join (default: RAY_ADDRESS, or a local Ray).")
    ] = None,
    insecure_no_token: Annotated[
        bool, typer.Option("--insecure-no-token", help="Join another machine without a token.")
    ] = False,
    as_json: common.AsJson = False,
) -> None:
    """Erase every concept of a batch. Running it again goes on where it stopped and skips what is done."""
    spec, tasks = common.planned(batch, overrides, output)
    from advanchor.report.html import write_report
    from advanchor.runtime.local import run_locally
    from advanchor.runtime.store import Store, StoreError

    try:
        store = Store(spec.output)
        keep_batch(store, batch.read_text(), overrides or [])
    except (StoreError, OSError) as error:
        common.fail(f"output: {error}")
    console = Console()
    with live.progress(as_json, console) as view:
        if local:
            status = run_locally(spec, tasks, store, view)
        else:
            status = run_on_ray(spec, tasks, store, view, address, insecure_no_token)
    write_report(store)
    if not as_json:
        show_end(console, status, store)
    raise typer.Exit(status.exit_code)


def keep_batch(store: "Store", text: str, overrides: list[str]) -> None:
    notes = "".join(f"# --set {override}\n" for override in overrides)
    store.write("batch.yaml", (notes + text).encode())


def run_on_ray(
    spec: "BatchSpec", tasks: "list[Task]", store: "Store", view: "View", address: str | None, insecure: bool
) -> "RunStatus":
    from advanchor.runtime.batch import Run
    from advanchor.runtime.ray_cluster import ClusterError, connected

    try:
        with connected(address, allow_without_token=insecure):
            return Run(spec, tasks, store, view).run()
    except ClusterError as error:
        common.fail(str(error))


def show_end(console: Console, status: "RunStatus", store: "Store") -> None:
    console.print(live.table(status))
    console.print(f"{live.summary(status)}", style="dim", highlight=False)
    for row in status.tasks:
        if row.status == "failed":
            console.print(f"failed: {row.name}: {row.reason}", style="red", markup=False, highlight=False)
    console.print(f"report: {store.path('report', 'index.html')}", markup=False, highlight=False, soft_wrap=True)
