"""The command line: one thin file per command. Nothing here imports torch until a command needs it."""

from typing import Annotated

import typer

import advanchor
from advanchor.cli import (
    art,
    bench,
    cancel,
    check,
    doctor,
    erase,
    export,
    fuse,
    generate,
    init,
    logs,
    measure,
    plan,
    pocket,
    report,
    results,
    review,
    schema,
    status,
    study,
    submit,
)

app = typer.Typer(
    name="advanchor",
    help="Takes concepts out of text-to-image diffusion models: batches in, one small delta per concept out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"advanchor {advanchor.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command()(init.init)
app.command()(check.check)
app.command()(plan.plan)
app.command()(erase.erase)
app.command()(submit.submit)
app.command()(status.status)
app.command()(logs.logs)
app.command()(cancel.cancel)
app.command()(erase.resume)
app.command()(cancel.retry)
app.command()(results.results)
app.command()(report.report)
app.command()(review.review)
app.command()(fuse.fuse)
app.command()(export.export)
app.command()(generate.generate)
app.command()(measure.measure)
app.command()(study.study)
app.command()(schema.schema)
app.command()(doctor.doctor)
app.add_typer(pocket.app, name="pocket")
app.add_typer(art.app, name="art")
app.add_typer(bench.app, name="bench")
