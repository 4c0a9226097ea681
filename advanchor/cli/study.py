"""advanchor study: experiments on the pocket gallery, run through the product itself."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from advanchor import studies
from advanchor.cli import common, live

if TYPE_CHECKING:
    from advanchor.studies import lab

ALL = "all"


def study(
    name: Annotated[
        str, typer.Argument(help=f"Which study: {', '.join(studies.STUDIES)}; {ALL}: each of them.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pages, figures and plots.")] = Path(
        "docs/studies"
    ),
    runs: Annotated[Path, typer.Option(help="Folder for the runs; what is there is not done again.")] = Path(
        "runs/studies"
    ),
    per_kind: Annotated[int, typer.Option(help="Concepts of each kind, at most.", min=1)] = 8,
    seeds: Annotated[int, typer.Option(help="Erasures of each concept by each method, at most.", min=1)] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Next to no steps and pictures: does everything run?")] = False,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray and DeepSpeed.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Run a study and write NAME.md, NAME.json and NAME.png. Running it again only writes them."""
    common.quiet()
    check(name)
    from advanchor import models
    from advanchor.studies import lab

    base, scale = models.load(lab.MODEL), lab.Scale(per_kind, seeds, quick)
    console = Console(stderr=True)
    done: list[lab.Found] = []
    output.mkdir(parents=True, exist_ok=True)
    for one in studies.STUDIES if name == ALL else (name,):
        chosen: lab.Study = studies.load(one)
        with ends(), live.progress(as_json, console) as view:
            trials = chosen.trials(base, scale)
            found = lab.run(runs / chosen.folder, trials, lab.asked(chosen, scale), view, local=local)
        rows = chosen.rows(base, found, scale)
        command = f"advanchor {shlex.join(one if word == ALL else word for word in sys.argv[1:])}"
        page = write(output / one, chosen, command, found, rows)
        print(json.dumps(rows, indent=2) if as_json else page)
        done += found
    if name == ALL:
        console.print(f"All of it: {lab.spent(done)}", highlight=False)


def check(name: str) -> None:
    """End the program if there is no such study, or nothing that draws."""
    from advanchor.explain import choice

    if name not in (*studies.STUDIES, ALL):
        common.fail(f"study {choice(name, (*studies.STUDIES, ALL))}")
    try:
        import matplotlib
    except ImportError:
        common.fail("matplotlib is missing, which draws the plots: pip install 'advanchor[studies]'")
    matplotlib.use("Agg")


@contextmanager
def ends() -> Iterator[None]:
    """A run that fails or is interrupted ends the program in words."""
    from advanchor.runtime.drive import ClusterError

    try:
        with common.user_errors():
            yield
    except (ClusterError, RuntimeError) as error:
        common.fail(str(error), common.SOME_FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(common.INTERRUPTED) from None


def write(path: Path, chosen: "lab.Study", command: str, found: "list[lab.Found]", rows: "list[lab.Row]") -> str:
    """The page PATH.md, which is returned, the figures PATH.json and the plot PATH.png."""
    from matplotlib import pyplot

    from advanchor.studies import lab

    head = f"# {chosen.title}\n\n    {command}\n\n![]({path.name}.png)\n"
    page = f"{head}\n{chosen.explained}\n\n{lab.tables(rows, chosen.columns)}\n{lab.spent(found)}\n"
    path.with_suffix(".md").write_text(page)
    lines = ",\n".join(json.dumps(row) for row in rows)  # a row per line, to be compared
    seconds = lab.effort(found)[1]
    path.with_suffix(".json").write_text(
        f'{{"command": {json.dumps(command)}, "rank_seconds": {seconds:.0f}, "rows": [\n{lines}\n]}}\n'
    )
    figure = pyplot.figure(layout="constrained")
    chosen.plot(rows, figure)
    figure.savefig(path.with_suffix(".png"), dpi=100)
    pyplot.close(figure)
    return page
