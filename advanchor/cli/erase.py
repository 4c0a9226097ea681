"""advanchor erase and advanchor resume: the main job."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from advanchor.cli import common, live
from advanchor.cli.console import console, safe, say, warn
from advanchor.cli.progress import progress

if TYPE_CHECKING:
    from advanchor.batch.plan import Task
    from advanchor.batch.spec import BatchSpec
    from advanchor.rundir.status import RunStatus, View
    from advanchor.rundir.store import Store
    from advanchor.runtime.place import Place
    from advanchor.runtime.trackers import Tracker

Local = Annotated[bool, typer.Option("--local", help="In this process, without Ray and DeepSpeed.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster to join (default: RAY_ADDRESS, or a local Ray).")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read every finished file first; do again what is damaged, by its sha256.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="N|NAME", help="Only the first N concepts, or this one; may be repeated."),
]
Track = Annotated[
    list[str] | None,
    typer.Option(help="tensorboard, wandb or mlflow; =PLACE: a folder (default: tracking).", metavar="NAME[=PLACE]"),
]
Notify = Annotated[
    str | None, typer.Option(help="POST a JSON there at the first failure and at the end.", metavar="URL")
]
Insecure = Annotated[bool, typer.Option("--insecure-no-token", help="Join another machine without a token.")]


def erase(
    batch: common.BatchFile,
    overrides: common.Overrides = None,
    output: common.Output = None,
    only: Only = None,
    local: Local = False,
    address: Address = None,
    insecure_no_token: Insecure = False,
    verify: Verify = False,
    track: Track = None,
    notify: Notify = None,
    as_json: common.AsJson = False,
) -> None:
    """Erase every concept of a batch. Running it again goes on where it stopped and skips what is done."""
    trackers = made_trackers(track or (), notify)
    read, tasks = common.planned(batch, overrides, output)
    spec = read.spec
    from advanchor.batch.plan import dump_plan
    from advanchor.rundir.again import in_place
    from advanchor.rundir.store import Store
    from advanchor.runtime.place import Place

    wanted = {task.concept.name for task in some(tasks, only or [])}
    with common.user_errors():
        store = Store(spec.output, spec.resources.storage_patience_s)
        store.keep_plan(read.text, overrides or [], dump_plan(spec, tasks))
        tasks = in_place(store, tasks)
    ids = {task.id for task in tasks if task.concept.name in wanted}
    run(spec, tasks, store, Place(local, address, insecure_no_token), trackers, verify, as_json, ids)


def some(tasks: "list[Task]", only: list[str]) -> "list[Task]":
    """The first N tasks, or those of the concepts that are named. Exit code 2 for what is neither."""
    known = {task.concept.name for task in tasks}
    if len(only) == 1 and only[0] not in known and only[0].isdecimal():
        number = int(only[0][:9])
        return tasks[:number] if number else common.fail("--only 0: is no number of concepts")
    return common.chosen(tasks, only)


def resume(
    run_directory: common.RunDirectory,
    local: Local = False,
    address: Address = None,
    insecure_no_token: Insecure = False,
    verify: Verify = False,
    track: Track = None,
    notify: Notify = None,
    as_json: common.AsJson = False,
) -> None:
    """Go on with a run from its directory alone, on any machine; the batch file is not needed."""
    common.quiet()
    trackers = made_trackers(track or (), notify)
    from advanchor.runtime.place import Place

    spec, tasks, store = common.opened(run_directory)
    run(spec, tasks, store, Place(local, address, insecure_no_token), trackers, verify, as_json)


def made_trackers(track: Sequence[str], notify: str | None) -> "list[Tracker]":
    """What follows the run. Exit code 2 for a tracker that there is not, or that is not installed."""
    if not track and notify is None:
        return []
    from advanchor.messages import choice
    from advanchor.runtime.trackers import TRACKERS, is_installed, make_tracker
    from advanchor.runtime.trackers.notifier import Notifier, NotifyError

    found: list[Tracker] = []
    for told in track:
        name, _, place = told.partition("=")
        if name not in TRACKERS:
            common.fail(f"--track: {choice(name, TRACKERS)}")
        if not is_installed(name):
            common.fail(f"--track {name}: the package is not installed: pip install 'advanchor[{name}]'")
        found.append(make_tracker(name, place or f"tracking/{name}"))
    try:
        return found if notify is None else [*found, Notifier(notify)]
    except NotifyError as error:
        common.fail(str(error))


def run(
    spec: "BatchSpec",
    tasks: "list[Task]",
    store: "Store",
    place: "Place",
    trackers: "list[Tracker]",
    verify: bool,
    as_json: bool,
    only: Collection[str] | None = None,
) -> None:
    """Do what is left to do, or those tasks of it with the ids in `only`; write the report, exit."""
    from advanchor.report.html import write_report
    from advanchor.runtime.errors import ClusterError
    from advanchor.runtime.place import drive

    with common.user_errors():
        other = working_driver(store)
        if verify:
            disown_damaged(tasks, store)
    if other and not as_json:
        say(f"another driver ({safe(other)}) is at work on this run: nothing breaks, but work is done twice", "yellow")
    with progress(as_json, console()) as view, followed(spec, tasks, store, trackers, view) as watched:
        try:
            status = drive(spec, tasks, store, watched, place, only)
        except ClusterError as error:
            common.fail(str(error))
    if status.state == "stopped":
        common.fail(f"the run has stopped: {status.note}; what is done is kept, the same command goes on", 1)
    with common.user_errors():
        write_report(store)
    warn(store.damaged)
    if not as_json:
        show_end(status, store)
    raise typer.Exit(status.exit_code)


@contextmanager
def followed(
    spec: "BatchSpec", tasks: "list[Task]", store: "Store", trackers: "list[Tracker]", view: "View"
) -> "Iterator[View]":
    """A view that also tells the trackers, to the end; what they fail with is a warning."""
    if not trackers:
        yield view
        return
    from advanchor.runtime.trackers import Watch

    watch = Watch(spec, tasks, store, trackers, lambda text: say(safe(f"warning: {text}"), "yellow", stderr=True))
    try:
        yield watch.around(view)
    finally:
        watch.close()


def disown_damaged(tasks: "list[Task]", store: "Store") -> None:
    """Forget results of which a file is not, byte for byte, what the result says."""
    by_id = {task.id: task for task in tasks}
    for task_id, why in store.changed_files(store.results()).items():
        if task_id in by_id:
            store.disown(by_id[task_id], why)


def working_driver(store: "Store") -> str:
    """Host and process of a driver that has written to this run within the last seconds."""
    from advanchor.rundir.status import read_status

    status = read_status(store)
    return status.driver if status and status.state == "running" and not status.is_stale else ""


def show_end(status: "RunStatus", store: "Store") -> None:
    console().print(live.table(status))
    say(safe(live.summary(status)), "dim")
    for row in status.tasks:
        if row.status == "failed":
            say(safe(f"failed: {row.name}: {row.reason}"), "red")
    if line := live.weak({row.name: (row.scores or {}).get("ua") for row in status.tasks if row.status == "done"}):
        say(safe(line), "yellow")
    if any(row.status in ("failed", "cancelled") for row in status.tasks):
        say(f"to try these again: advanchor retry {safe(store.url)} --failed --cancelled")
    if waiting := status.count("waiting"):
        say(f"{waiting} wait; to go on with them: advanchor resume {safe(store.url)}")
    say(f"report: {safe(store.path('report', 'index.html'))}")
