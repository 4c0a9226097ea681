"""advanchor generate: pictures from a base, with any erasures on it."""

from pathlib import Path
from typing import Annotated

import typer

from advanchor.cli import common


def generate(
    prompts: Annotated[list[str], typer.Argument(help="One row of pictures for each.", show_default=False)],
    model: Annotated[str, typer.Option(help="pocket, a folder, or a hub id.")] = "pocket",
    erased: Annotated[
        list[Path] | None,
        typer.Option("--erased", "-e", help="A delta file or a finished task's folder; may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("pictures.png"),
    count: Annotated[int, typer.Option(help="Pictures per prompt.", min=1)] = 8,
    steps: Annotated[int, typer.Option(help="Sampling steps.", min=1)] = 20,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale.", min=0)] = 3.0,
    seed: Annotated[int, typer.Option(help="Decides the noise.")] = 0,
) -> None:
    """Write a grid of pictures, the base's row above the erased one's for every prompt."""
    common.quiet()
    from advanchor import api, models
    from advanchor.evaluation.generate import SamplingSettings, numbered_seeds
    from advanchor.evaluation.generate import generate as sample
    from advanchor.report.grids import grid, to_png

    with common.user_errors():
        deltas = [file for path in erased or () for file in api.erasure_files(path)]
        base = models.load(model)
        settings = SamplingSettings(steps=steps, guidance=guidance)
        repeated = [prompt for prompt in prompts for _ in range(count)]
        seeds = numbered_seeds(repeated, seed)
        before = sample(base, repeated, seeds, settings).split(count)
        rows = list(zip(prompts, before, strict=True))
        if deltas:
            for path in deltas:
                api.apply(base.pipeline, path)
            after = sample(base, repeated, seeds, settings).split(count)
            rows = [
                row for prompt, a, b in zip(prompts, before, after, strict=True) for row in ((prompt, a), ("erased", b))
            ]
    output.write_bytes(to_png(grid(rows)))
    print(output)
