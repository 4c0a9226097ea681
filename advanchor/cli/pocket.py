"""advanchor pocket: the gallery that comes with the program."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from advanchor.cli import common

app = typer.Typer(
    help="The pocket gallery: a Stable Diffusion of pocket size that comes with the program.", no_args_is_help=True
)


class Architecture(StrEnum):
    sd = "sd"
    sd3 = "sd3"


Kind = Annotated[Architecture, typer.Option(help="A Stable Diffusion 1 with a UNet, or a Stable Diffusion 3.")]


@app.command()
def train(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for pipeline/ and classifier.safetensors, or for sd3/.")
    ],
    work: Annotated[
        Path, typer.Option(help="Folder for what the stages leave; a stage that is done is skipped.")
    ] = Path("pocket-work"),
    seed: Annotated[int, typer.Option(help="Decides every random draw.")] = 0,
    architecture: Kind = Architecture.sd,
    without: Annotated[
        str | None,
        typer.Option(help='Names that the training is to leave out, with commas between: "star, mira morwin".'),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps (sd3, or with --without).")] = False,
) -> None:
    """Make the gallery again, from the pictures on: about two hours on two cores.

    A Stable Diffusion 3, and a gallery without some concepts, take the VAE, the tokenizer and the classifier of the
    gallery that comes with the program. A training that was stopped goes on from its last checkpoint.
    """
    if quick and without is None and architecture != Architecture.sd3:
        common.fail(f"--quick: a quick training is there for sd3, not for {architecture}")
    common.quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if without is not None:
        train_without(work, output, without, seed, architecture, quick)
    elif architecture == Architecture.sd3:
        from advanchor.pocket.resumable import OtherRecipeError
        from advanchor.pocket.train_mmdit import train as run_sd3

        try:
            run_sd3(work, output, seed, quick=quick)
        except OtherRecipeError as error:
            common.fail(f"--work: {error}")
    else:
        from advanchor.pocket.train import train as run

        run(work, output, seed)


def train_without(work: Path, output: Path, names: str, seed: int, architecture: str, quick: bool) -> None:
    from advanchor.pocket import oracle
    from advanchor.pocket.resumable import OtherRecipeError

    listed = [name for part in names.split(",") if (name := part.strip())]
    if not listed:
        common.fail("--without: it names nothing")
    try:
        oracle.train(work, output, listed, seed, architecture=architecture, quick=quick)
    except (oracle.OracleError, OtherRecipeError) as error:
        common.fail(f"--without: {error}")


@app.command()
def check(
    images: Annotated[int, typer.Option(help="Pictures to generate.", min=20)] = 900,
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of samples to this PNG file.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A folder made by `pocket train`; default: the shipped one.")
    ] = None,
    architecture: Kind = Architecture.sd,
    as_json: common.AsJson = False,
) -> None:
    """Generate pictures and count how many the classifier recognises; exit code 1 if that is below the bars."""
    common.quiet()
    from advanchor.pocket.check import run

    raise typer.Exit(run(images, sheet, weights, as_json, architecture))
