"""advanchor bench: measurements of the program itself."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from advanchor.cli import common

app = typer.Typer(help="Measurements of the program itself.", no_args_is_help=True)


class BenchModel(StrEnum):
    pocket = "pocket"
    sd14 = "sd14"
    sdxl = "sdxl"


@app.callback()
def bench() -> None:
    pass


@app.command()
def speed(
    model: Annotated[
        BenchModel, typer.Option(help="sd14 and sdxl: their exact shapes, random weights.")
    ] = BenchModel.pocket,
    steps: Annotated[int, typer.Option(help="Student steps, one image each.", min=1)] = 51,
    anchor_steps: Annotated[int, typer.Option(help="Steps of the anchor search per image.", min=1)] = 30,
    pack: Annotated[int, typer.Option(help="Concepts at once.", min=1)] = 32,
    processes: Annotated[int, typer.Option(help="Processes side by side in (d); 1: no (d).", min=1)] = 2,
    rounds: Annotated[int, typer.Option(help="Measurements of each variant, each with another seed.", min=1)] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads; (d) shares them out.", min=1)] = 2,
    side: Annotated[int, typer.Option(help="Of sd14's and sdxl's latents.", min=8)] = 8,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Score the first concept too (pocket only).")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write every measurement to a JSON file.")
    ] = None,
) -> None:
    """The authors' schedule and ours, side by side: a table in Markdown."""
    common.quiet()
    from advanchor.bench.speed import markdown, run
    from advanchor.bench.trial import Trial

    num_latents, latent_steps = (8, 10) if model is BenchModel.pocket else (2, 2)  # random weights show nothing
    trial = Trial(
        "ours",
        model.value,
        steps=steps,
        anchor_steps=anchor_steps,
        num_latents=num_latents,
        latent_steps=latent_steps,
        side=side,
        threads=threads,
        evaluate=evaluate,
    )
    table, raw = run(trial, pack, processes, rounds, lambda line: typer.echo(line, err=True))
    if output:
        output.write_text(json.dumps({"table": [asdict(row) for row in table], "measurements": raw}, indent=1))
    typer.echo(markdown(table))
