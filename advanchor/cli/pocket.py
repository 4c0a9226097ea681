"""advanchor pocket: the gallery that comes with the program."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from advanchor.cli import common

app = typer.Typer(
    help="The pocket gallery: a Stable Diffusion of pocket size that comes with the program.", no_args_is_help=True
)


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pipeline/ and classifier.safetensors.")],
    work: Annotated[
        Path, typer.Option(help="Folder for what the stages leave; a stage that is done is skipped.")
    ] = Path("pocket-work"),
    seed: Annotated[int, typer.Option(help="Decides every random draw.")] = 0,
) -> None:
    """Make the gallery again, from the pictures on: about two hours on two cores."""
    common.quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    from advanchor.pocket.train import train as run

    run(work, output, seed)


@app.command()
def check(
    images: Annotated[int, typer.Option(help="Pictures to generate.", min=20)] = 900,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of samples to this PNG file.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A folder made by `pocket train`; default: the shipped one.")
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Generate pictures and count how many the classifier recognises; exit code 1 if that is below the bars."""
    common.quiet()
    from advanchor.pocket.check import run

    raise typer.Exit(run(images, sheet, weights, as_json))
