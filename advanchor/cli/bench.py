"""advanchor bench: measurements of the program itself."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from advanchor.cli import common

app = typer.Typer(help="Measurements of the program itself.", no_args_is_help=True)


@app.command()
def fusion(
    run: Annotated[
        str | None, typer.Argument(help="A run on the pocket gallery; without one, time and memory only.")
    ] = None,
    counts: Annotated[list[int] | None, typer.Option("--count", help="Erased concepts; may be repeated.")] = None,
    methods: Annotated[list[str] | None, typer.Option("--method", help="Only this one; may be repeated.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")] = Path("runs/bench-fusion"),
    files: Annotated[int, typer.Option(help="Random statistics files of 79 MB, read over and over.", min=1)] = 24,
) -> None:
    """Fusing: with a run, what is erased and what is left by method and number; without, speed at SD 1.4's sizes."""
    common.quiet()
    from advanchor.bench import fusion as bench
    from advanchor.bench import fusion_scale
    from advanchor.runtime.accept import Examination

    command = f"advanchor {shlex.join(sys.argv[1:])}"
    if run is None:
        found = fusion_scale.run(output / "statistics", files, counts or [100, 1000])
        print(json.dumps(found, indent=2))
        bench.write(output, "scale.json", json.dumps({"command": command} | found, indent=2))
        return
    if unknown := set(methods or []) - set(bench.EDITS):
        common.fail(f"--method {min(unknown)!r} is not one of {', '.join(bench.EDITS)}")
    examined = bench.Bench(run, Examination())
    wanted = counts or [n for n in (1, 10, 25, 50, 100, 150) if n <= len(examined.concepts)]
    rows = []
    for row in examined.rows(wanted, methods or list(bench.EDITS)):
        print(json.dumps(row), flush=True)
        rows.append(row)
    seed = examined.evaluator.settings.seed
    note = f"\n`{command}`; evaluation seed {seed}; ACC_s over {len(examined.hidden)} hidden names\n"
    print(bench.table(rows) + note)
    bench.write(output, "gallery.md", bench.table(rows) + note)
    bench.write(output, "gallery.json", json.dumps({"command": command, "rows": rows}, indent=2))
