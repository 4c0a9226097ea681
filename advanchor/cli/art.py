"""advanchor art: a gallery of real art, drawn by five open emoji sets."""

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from advanchor.cli import common, console

app = typer.Typer(help="The art gallery: the same subjects by the hands of five open emoji sets.", no_args_is_help=True)


@app.callback()
def group() -> None:
    pass


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for sd3/ and classifier.safetensors.")],
    work: Annotated[
        Path, typer.Option(help="Folder for what the stages leave; a stage that is done is skipped.")
    ] = Path("runs/art"),
    sets: Annotated[
        Path | None, typer.Option(help="Folder for the packages of the emoji sets; default: sets/ in --work.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every random draw.")] = 0,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes; the same command goes on from there.", min=0)
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that work at a time; the weights are the same.", min=1)] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps on plain shapes, without the network, to see that it runs.")
    ] = False,
) -> None:
    """Make the gallery: hours of two cores. A training that was stopped goes on from its last checkpoint."""
    common.quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    from advanchor.art.sets import SetError
    from advanchor.art.train import FULL, QUICK, Sitting
    from advanchor.art.train import train as run
    from advanchor.pocket.resumable import OtherRecipeError, OutOfTimeError

    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    sitting = Sitting(work / "quick" if quick else work, seed, threads, lambda: time.monotonic() >= end)
    try:
        run(sitting, output, None if quick else sets or work / "sets", QUICK if quick else FULL)
    except OutOfTimeError as stopped:
        console.say(f"stopped after {minutes:g} minutes, {stopped}; the same command goes on from there")
    except OtherRecipeError as error:
        common.fail(f"--work: {error}")
    except SetError as error:
        common.fail(f"--sets: {error}")
