"""advanchor bench: measurements of the program itself."""

import json
import shlex
import sys
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from advanchor.cli import common
from advanchor.cli.console import say

app = typer.Typer(help="Measurements of the program itself.", no_args_is_help=True)

Work = Annotated[
    Path | None, typer.Option("--output", "-o", help="Keep the runs and the figures in this new folder.", metavar="DIR")
]


def new_folder(output: Path | None) -> Path:
    if output is None:
        import tempfile

        return Path(tempfile.mkdtemp(prefix="advanchor-bench-"))
    try:
        output.mkdir(parents=True)
    except FileExistsError:
        common.fail(f"{output} is there already; a measurement starts in a new folder")
    return output.absolute()


def tell(figures: Any, text: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        say(text)


@app.command()
def chaos(
    concepts: Annotated[int, typer.Option(help="Tasks of the batch.", min=2)] = 200,
    kills: Annotated[int, typer.Option(help="Ranks, nodes and drivers killed.", min=0)] = 50,
    seed: Annotated[int, typer.Option(help="Decides what is killed, and when.")] = 0,
    nodes: Annotated[int, typer.Option(help="Nodes of one CPU each, on this machine.", min=1)] = 2,
    damage: Annotated[int, typer.Option(help="Files of the run directory cut off, emptied or flipped.", min=0)] = 0,
    output: Work = None,
    as_json: common.AsJson = False,
) -> None:
    """Kill ranks, nodes and drivers at random under a batch; exit code 1 unless it ends like an undisturbed one."""
    common.quiet()
    from advanchor.bench import chaos as bench

    folder = new_folder(output)
    figures = bench.measure(folder, concepts, kills, seed, nodes, damage)
    (folder / "chaos.json").write_text(json.dumps(figures.to_json(), indent=2) + "\n")
    tell(figures.to_json(), "\n".join(figures.lines()), as_json)
    raise typer.Exit(common.SOME_FAILED if figures.problems else common.OK)


@app.command()
def gpu(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and its figures.", metavar="DIR")],
    bases: Annotated[
        list[str] | None,
        typer.Option("--base", help="Measure only this base; may be repeated.", show_default="all of them"),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Begin nothing after so many.", min=0.1)] = 8.0,
    toy: Annotated[bool, typer.Option("--toy", help="Small models on the CPU: to see that it runs.")] = False,
) -> None:
    """Every base's exact shapes with random weights on this machine's GPU: time, memory against `plan`, a page."""
    common.quiet()
    import torch

    from advanchor.bench import gpu as bench
    from advanchor.bench.published import PUBLISHED
    from advanchor.messages import choice

    for name in bases or []:
        if name not in PUBLISHED:
            common.fail(f"--base {choice(name, PUBLISHED)}")
    if not toy and not torch.cuda.is_available():
        common.fail("bench gpu needs a GPU, and PyTorch sees none; --toy runs small models on the CPU")
    found = bench.measure(bases or [], minutes, partial(say, stderr=True), toy=toy)
    bench.write(found, output, f"advanchor {shlex.join(sys.argv[1:])}")
    say(f"{output / 'README.md'}: {len(found.bases)} bases in {found.seconds / 60:.1f} minutes")
    raise typer.Exit(common.SOME_FAILED if found.failed else common.OK)


@app.command()
def memory(
    batch_size: Annotated[int, typer.Option(help="Draws of a batch.", min=1, max=10_000)] = 4,
    concepts: Annotated[int, typer.Option(help="With --gpus: concepts erased from SDXL.", min=1)] = 300,
    gpus: Annotated[
        list[int] | None,
        typer.Option(help="Instead of the table: how long they take on so many GPUs; may be repeated."),
    ] = None,
    tflops: Annotated[float, typer.Option(help="What a GPU is assumed to do, in TFLOP/s.", min=0.001)] = 400.0,
    batch: Annotated[Path, typer.Option(help="The batch whose settings are used.", exists=True)] = Path(
        "configs/sdxl.yaml"
    ),
) -> None:
    """What SDXL and FLUX.1-dev need of a GPU, from their configurations: a table in Markdown. Nothing is loaded."""
    common.quiet()
    from advanchor.bench.memory import duration, table

    for number in gpus or ():
        say(duration(batch, "SDXL", 1024, concepts, number, tflops))
    if not gpus:
        say("\n".join(table(batch_size)))


@app.command()
def scale(
    tasks: Annotated[int, typer.Option(help="Tasks of each run.", min=8)] = 1000,
    gangs: Annotated[list[int] | None, typer.Option(help="Gangs at a time; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each task waits in the place of computing.", min=0)] = 0.5,
    output: Work = None,
    as_json: common.AsJson = False,
) -> None:
    """Run very many tasks that erase nothing on 1, 2, 4, 8 and 16 pretended GPUs: what the driver costs per task."""
    common.quiet()
    from advanchor.bench import scale as bench

    folder = new_folder(output)
    rows = bench.measure(folder, tasks, gangs or [1, 2, 4, 8, 16], seconds)
    found = [row.to_json() for row in rows]
    (folder / "scale.json").write_text(json.dumps(found, indent=2) + "\n")
    tell(found, "\n".join([bench.HEAD, *map(bench.line, rows)]), as_json)


@app.command()
def orchestration(run_directory: common.RunDirectory, as_json: common.AsJson = False) -> None:
    """How much of a finished run's time its gangs spent on anything but erasing and evaluating."""
    common.quiet()
    from advanchor.bench import orchestration as bench
    from advanchor.rundir.store import Store

    with common.user_errors():
        try:
            found = bench.measure(Store(run_directory))
        except ValueError as error:
            common.fail(f"{run_directory}: {error}")
    tell(asdict(found), found.sentence(), as_json)


@app.command()
def fusion(
    run: Annotated[
        str | None, typer.Argument(help="A run on the pocket gallery; without one, time and memory only.")
    ] = None,
    counts: Annotated[list[int] | None, typer.Option("--count", help="Erased concepts; may be repeated.")] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Only this, e.g. 'closed_form, ridge=1e-3'; may be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")] = Path("runs/bench-fusion"),
    files: Annotated[int, typer.Option(help="Random statistics files of 79 MB, read over and over.", min=1)] = 24,
) -> None:
    """Fusing: with a run, what is erased and what is left by method and number; without, speed at SD 1.4's sizes."""
    common.quiet()
    from advanchor.bench import fusion as bench
    from advanchor.bench import fusion_scale
    from advanchor.fusion.gate import Examination
    from advanchor.fusion.member import FusionError, Workshop

    command = f"advanchor {shlex.join(sys.argv[1:])}"
    if run is None:
        found = fusion_scale.run(output / "statistics", files, counts or [100, 1000])
        print(json.dumps(found, indent=2))
        bench.write(output, "scale.json", json.dumps({"command": command} | found, indent=2))
        return
    try:
        for label in methods or []:
            bench.edit_called(label)
    except ValueError as error:
        common.fail(f"--method {error}")
    rows = []
    try:
        workshop = Workshop(output, partial(say, stderr=True))
        examined = bench.Bench(run, Examination(retained_images_per_prompt=bench.COPIES), workshop)
        wanted = counts or [n for n in (1, 10, 25, 50, 100, 150) if n <= len(examined.concepts)]
        seed = examined.evaluator.settings.seed
        note = f"\n`{command}`; evaluation seed {seed}; ACC_s over {len(examined.hidden)} hidden names\n"
        for row in examined.rows(wanted, methods or list(bench.EDITS)):
            print(json.dumps(row), flush=True)
            rows.append(row)
            bench.write(output, "gallery.md", bench.table(rows) + note)
            bench.write(output, "gallery.json", json.dumps({"command": command, "rows": rows}, indent=2))
    except FusionError as error:
        common.fail(str(error))
    say(bench.table(rows) + note)


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
    side: Annotated[int, typer.Option(help="Side of sd14's and sdxl's latents.", min=8)] = 8,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Score the first concept too (pocket only).")] = False,
    levers: Annotated[
        bool, typer.Option("--levers", help="Instead: packs with one lever at a time, which docs/speed.md lists.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write every measurement to a JSON file.")
    ] = None,
) -> None:
    """The authors' schedule and ours, side by side: a table in Markdown."""
    common.quiet()
    from advanchor.bench.speed import lever_variants, markdown, run, variants
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
    chosen = lever_variants(trial, pack) if levers else variants(trial, pack, processes)
    table, raw = run(trial, chosen, rounds, partial(say, stderr=True))
    if output:
        output.write_text(json.dumps({"table": [asdict(row) for row in table], "measurements": raw}, indent=1))
    say(markdown(table))
