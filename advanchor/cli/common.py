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
    from advanchor.plan import Task
    from advanchor.runtime.store import Store
    from advanchor.spec import BatchSpec

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
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(code)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Errors that are the user's to mend become lines on stderr and exit code 2; others keep their traceback."""
    from advanchor.artifacts import ArtifactError
    from advanchor.models import ModelError
    from advanchor.runtime.files import StoreError
    from advanchor.spec import BatchError

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
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


def planned(batch: Path, overrides: Sequence[str] | None, output: str | None) -> "tuple[BatchSpec, list[Task]]":
    """The batch and its tasks; every error is reported at once, before any work, with exit code 2."""
    quiet()
    from advanchor.batch_file import located, read_batch
    from advanchor.plan import plan
    from advanchor.spec import BatchError

    with user_errors():
        spec, concepts = read_batch(batch, overrides or (), output)
        try:
            return spec, plan(spec, concepts)
        except BatchError as error:
            raise BatchError(located(error.problems, batch)) from error


def opened(run_directory: str) -> "tuple[BatchSpec, list[Task], Store]":
    """A run by its directory. Exit code 2 if there is none."""
    from pydantic import ValidationError

    from advanchor.plan import load_plan
    from advanchor.runtime.store import Store

    with user_errors():
        store = Store(run_directory)
        content = store.read_json("plan.json")
    if content is None:
        fail(f"{run_directory} has no plan.json: it is not a run directory")
    try:
        spec, tasks = load_plan(content)
    except (ValidationError, KeyError) as error:
        fail(f"{store.path('plan.json')} was written by another version of this program: {error}")
    return spec.model_copy(update={"output": store.url}), tasks, store


def chosen(tasks: "list[Task]", names: Sequence[str]) -> "list[Task]":
    """The tasks of these concepts; all of them if none is named. Exit code 2 for a name that is not in the run."""
    from advanchor.explain import choice

    known = {task.concept.name: task for task in tasks}
    for name in names:
        if name not in known:
            fail(f"concept {choice(name, list(known))}" if len(known) <= 20 else f"the run has no concept {name!r}")
    return [known[name] for name in names] if names else tasks


def is_terminal() -> bool:
    return sys.stdout.isatty()
