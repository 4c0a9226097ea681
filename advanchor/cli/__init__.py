"""The command line: one thin file per command. Nothing here imports torch until a command needs it."""

from typing import Annotated

import typer

import advanchor
from advanchor.cli import bench, check, doctor, erase, fuse, generate, plan, pocket, report, results, status

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


app.command()(erase.erase)
app.command()(plan.plan)
app.command()(status.status)
app.command()(results.results)
app.command()(report.report)
app.command()(fuse.fuse)
app.command()(check.check)
app.command()(generate.generate)
app.command()(doctor.doctor)
app.add_typer(pocket.app, name="pocket")
app.add_typer(bench.app, name="bench")
