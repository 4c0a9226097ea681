"""advanchor generate: pictures from a base, with any erasures on it."""

import hashlib
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advanchor.cli import common
from advanchor.cli.console import safe, say
from advanchor.cli.erase import Address, Insecure

if TYPE_CHECKING:
    from advanchor.evaluation.settings import SamplingSettings
    from advanchor.runtime.place import Place


class Solver(StrEnum):
    ddim = "ddim"
    dpm = "dpm"


def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="One row of pictures for each.", show_default=False)
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--prompts", help="A CSV file with the columns prompt, seed, guidance and category.", metavar="CSV"
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="With --prompts: base/ and erased/ in it get a PNG for each row.", metavar="DIR")
    ] = None,
    model: Annotated[str, typer.Option(help="pocket, pocket-sd3, a folder, or a hub id.")] = "pocket",
    erased: Annotated[
        list[Path] | None,
        typer.Option("--erased", "-e", help="A delta file or a finished task's folder; may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("pictures.png"),
    count: Annotated[int, typer.Option(help="Pictures per prompt.", min=1, max=1000)] = 8,
    steps: Annotated[int, typer.Option(help="Sampling steps.", min=1, max=1000)] = 20,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale.", min=0, max=1000)] = 3.0,
    seed: Annotated[int, typer.Option(help="Decides the noise.")] = 0,
    solver: Annotated[Solver, typer.Option(help="dpm needs about half the steps.")] = Solver.ddim,
    gangs: Annotated[
        int | None, typer.Option(help="With --prompts: draw in so many processes of a Ray cluster.", min=1, max=10_000)
    ] = None,
    address: Address = None,
    insecure_no_token: Insecure = False,
) -> None:
    """Write a grid of pictures, the base's row above the erased one's for every prompt.

    With --prompts, draw a table's rows instead, one PNG each; what is there already is not drawn again.
    """
    if bool(prompts) == bool(table):
        common.fail("say either prompts or --prompts CSV")
    if (table is None) != (folder is None):
        common.fail("--prompts and --folder go together")
    if guidance != guidance:  # click compares, and nothing is below or above nan
        common.fail("--guidance nan: is not a number")
    if (gangs and not table) or (address and not gangs):
        common.fail("--gangs goes with --prompts, and --address with --gangs")
    common.quiet()
    if table and folder:
        from advanchor.evaluation.settings import SamplingSettings
        from advanchor.runtime.place import Place

        sampling = SamplingSettings(steps=steps, guidance=guidance, solver=solver.value)
        draw_table(
            table, folder, model, erased or [], sampling, seed, gangs, Place(not gangs, address, insecure_no_token)
        )
        return
    draw_grid(prompts or [], model, erased or [], output, count, steps, guidance, seed, solver)


def draw_grid(
    prompts: list[str],
    model: str,
    erased: list[Path],
    output: Path,
    count: int,
    steps: int,
    guidance: float,
    seed: int,
    solver: Solver,
) -> None:
    common.check_new_file("--output", output)
    from advanchor import api, models
    from advanchor.evaluation.generate import generate as sample
    from advanchor.evaluation.generate import numbered_seeds
    from advanchor.evaluation.grids import grid, to_png
    from advanchor.evaluation.settings import SamplingSettings

    with common.user_errors():
        deltas = [file for path in erased for file in api.files_of(path)]
        base = models.load(model)
        settings = SamplingSettings(steps=steps, guidance=guidance, solver=solver.value)
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
    say(safe(output))


def draw_table(
    table: Path,
    folder: Path,
    model: str,
    erased: list[Path],
    settings: "SamplingSettings",
    seed: int,
    gangs: int | None,
    place: "Place",
) -> None:
    """FOLDER/base and, where something is erased, FOLDER/erased: a PNG for each row; rows.csv says which is which."""
    from advanchor import api, models
    from advanchor.evaluation.prompt_table import TableError, index, read_rows
    from advanchor.runtime.drawing import Drawing, draw, draw_on_gangs
    from advanchor.runtime.errors import ClusterError

    try:
        rows = read_rows(table, settings.guidance, seed)
    except TableError as error:
        common.fail(str(error))
    with common.user_errors():
        deltas = [file.resolve() for path in erased for file in api.files_of(path)]
        claim(folder, models.place_of(model).digest, deltas, settings.model_dump(mode="json"), index(rows))
        model = str(Path(model).resolve()) if Path(model).exists() else model
        drawing = Drawing(model, tuple(map(str, deltas)), tuple(rows), str(folder.resolve()), settings)
        try:
            counts = list(draw_on_gangs(drawing, gangs, place)) if gangs else [draw(drawing)]
        except ClusterError as error:
            common.fail(str(error), common.SOME_FAILED)
    for name in counts[0]:
        say(f"{len(rows)} rows, {sum(own[name] for own in counts)} drawn: {name}")
    say(safe(folder))


def claim(folder: Path, digest: str, deltas: list[Path], settings: dict[str, Any], content: str) -> None:
    """Make the folder this table's. Exit code 2 if it holds pictures of anything else."""
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in deltas]
    rows = hashlib.sha256(content.encode()).hexdigest()
    record = {"base": digest, "erased": hashes, "settings": settings, "rows": rows}
    path = folder / "generate.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if json.loads(path.read_text()) != record:
                common.fail(f"--folder {folder} holds pictures of another model, table or setting: name another folder")
            return
        (folder / "rows.csv").write_text(content, encoding="utf-8", newline="")
        path.write_text(json.dumps(record, indent=2) + "\n")
    except (OSError, ValueError) as error:
        common.fail(f"--folder {folder}: {getattr(error, 'strerror', None) or error}")
