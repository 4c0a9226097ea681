"""advanchor report: a run as one page, or two runs compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advanchor.cli import common
from advanchor.cli.console import safe, say, warn

if TYPE_CHECKING:
    from advanchor.rundir.store import Store

COMPARISON = "report/compared.html"


def report(
    run: common.RunDirectory,
    other: Annotated[
        str | None, typer.Argument(help="A second run, to compare with the first.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="One file instead, with every picture in it.", metavar="FILE"),
    ] = None,
) -> None:
    """Write report/index.html anew from what the run directory holds, and say where it is.

    With two runs, report/compared.html of the second says what got better and what got worse.
    """
    from advanchor.report.html import whole_report, write_report

    if output:
        common.check_new_file("--output", output)
    with common.user_errors():
        store = opened(run)
        if other is not None:
            compared(store, opened(other), output)
            return
        if output:
            output.write_bytes(whole_report(store))
        written = str(output) if output else write_report(store)
    warn(store.damaged)
    say(safe(written))


def opened(run: str) -> "Store":
    """Exit code 2 for what is no run directory."""
    from advanchor.rundir.store import Store

    store = Store(run)
    if store.read("batch.yaml") is None:
        common.fail(f"{run} has no batch.yaml: it is not a run directory")
    return store


def compared(a: "Store", b: "Store", output: Path | None) -> None:
    from advanchor.report.compare import compare

    page, told = compare(a, b)
    if output:
        output.write_bytes(page)
    else:
        b.write(COMPARISON, page)
    warn(a.damaged | b.damaged)
    say(", ".join(f"{count} {name}" for name, count in told["counts"].items()))
    say(safe(output or b.path(COMPARISON)))
