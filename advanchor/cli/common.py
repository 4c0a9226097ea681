"""What commands share: arguments, errors as exit codes, and quiet libraries."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from advanchor.batch.file import Batch
    from advanchor.batch.plan import Task
    from advanchor.batch.spec import BatchSpec
    from advanchor.rundir.store import Store

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

BatchFile = Annotated[Path, typer.Argument(help="The batch: a YAML file as in configs/.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting: --set method.lr=2e-5.", metavar="KEY=VALUE")
]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="Run directory instead of the batch's own.", metavar="DIR")
]
RunDirectory = Annotated[str, typer.Argument(help="A run directory (a folder or fsspec URL).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    from advanchor.cli.console import safe

    for line in message.strip("\n").split("\n"):
        typer.echo(f"error: {safe(line)}", err=True)
    raise typer.Exit(code)


def check_new_file(option: str, path: Path) -> None:
    """Make the folder that a file will be written into. Exit code 2 if that, or the file, cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        blocked = "is a folder" if path.is_dir() else "" if os.access(path.parent, os.W_OK) else "cannot be written"
    except (OSError, ValueError) as error:
        blocked = f"cannot be written: {getattr(error, 'strerror', None) or error}"
    if blocked:
        fail(f"{option} {path}: {blocked}")


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Errors that are the user's to mend become lines on stderr and exit code 2; others keep their traceback."""
    from advanchor.artifacts import ArtifactError
    from advanchor.batch.spec import BatchError
    from advanchor.models import ModelError
    from advanchor.rundir.storage import StoreError

    try:
        yield
    except (ArtifactError, BatchError, FileNotFoundError, ModelError, StoreError) as error:
        fail(str(error))


def quiet() -> None:
    """Keep the libraries' progress bars and hints out of the way; call before importing them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("DS_ACCELERATOR_LOG", "ERROR")
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)  # it sets its level itself


def planned(batch: Path, overrides: Sequence[str] | None, output: str | None) -> "tuple[Batch, list[Task]]":
    """The batch and its tasks; every error is reported at once, before any work, with exit code 2."""
    quiet()
    from advanchor.batch.file import read_batch
    from advanchor.batch.plan import make_tasks
    from advanchor.batch.problems import problems
    from advanchor.batch.spec import BatchError
    from advanchor.rundir.store import Store

    with user_errors():
        try:
            read = read_batch(batch, overrides or (), output)
        except BatchError as error:
            if error.rest is None:
                raise
            more = error.rest.located(problems(error.rest.spec, error.rest.concepts, fetch=False))
            raise BatchError([*error.problems, *more]) from error
        if found := problems(read.spec, read.concepts):
            raise BatchError(read.located(found))
        Store(read.spec.output)  # can it be a run directory at all?
        return read, make_tasks(read.spec, read.concepts)


def opened(run_directory: str) -> "tuple[BatchSpec, list[Task], Store]":
    """A run by its directory, with what has come in the place of its tasks. Exit code 2 if there is none."""
    from advanchor.batch.plan import load_plan
    from advanchor.rundir.again import in_place
    from advanchor.rundir.store import Store

    with user_errors():
        store = Store(run_directory)
        content = store.read_json("plan.json")
        if content is None:
            fail(f"{run_directory} has no plan.json: it is not a run directory")
        spec, tasks = load_plan(content, store.path("plan.json"))
        tasks = in_place(store, tasks)
    return spec.model_copy(update={"output": store.url}), tasks, store


def chosen(tasks: "list[Task]", names: Sequence[str]) -> "list[Task]":
    """The tasks of these concepts; all of them if none is named. Exit code 2 for a name that is not in the run."""
    from advanchor.messages import choice

    known = {task.concept.name: task for task in tasks}
    for name in names:
        if name not in known:
            fail(f"concept {choice(name, list(known))}" if len(known) <= 20 else f"the run has no concept {name!r}")
    return [known[name] for name in names] if names else tasks


def is_terminal() -> bool:
    return sys.stdout.isatty()
