"""advanchor study: experiments on the pocket gallery, run through the product itself."""

import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from advanchor.cli import common, live


def study(
    name: Annotated[str, typer.Argument(help="Which study: rivals.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for page, figures and plot.")] = Path(
        "docs/studies"
    ),
    runs: Annotated[Path, typer.Option(help="Folder for the runs; what is there is not done again.")] = Path(
        "runs/studies"
    ),
    per_kind: Annotated[int, typer.Option(help="Concepts of each kind, at most.", min=1)] = 8,
    seeds: Annotated[int, typer.Option(help="Erasures of each concept by each method.", min=1)] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Next to no steps and pictures: does everything run?")] = False,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray and DeepSpeed.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Run a study and write NAME.md, NAME.json and NAME.png. Running it again only writes them."""
    common.quiet()
    from advanchor import models
    from advanchor.explain import choice
    from advanchor.runtime.drive import ClusterError
    from advanchor.studies import STUDIES, lab

    if name not in STUDIES:
        common.fail(f"study {choice(name, STUDIES)}")
    try:
        import matplotlib
    except ImportError:
        common.fail("matplotlib is missing, which draws the plots: pip install 'advanchor[studies]'")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = importlib.import_module(STUDIES[name])
    trials = chosen.trials(models.load(lab.MODEL), per_kind=per_kind, seeds=seeds, quick=quick)
    console = Console(stderr=True)
    try:
        with common.user_errors(), live.progress(as_json, console) as view:
            found = lab.run(runs / name, trials, chosen.evaluation(quick=quick), view, local=local)
    except (ClusterError, RuntimeError) as error:
        common.fail(str(error), common.SOME_FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(common.INTERRUPTED) from None
    output.mkdir(parents=True, exist_ok=True)
    command = f"advanchor {shlex.join(sys.argv[1:])}"
    page = f"# {chosen.TITLE}\n\n    {command}\n\n![]({name}.png)\n\n{chosen.page(found)}"
    (output / f"{name}.md").write_text(page)
    (output / f"{name}.json").write_text(json.dumps({"command": command, "rows": chosen.table(found)}, indent=1) + "\n")
    figure = pyplot.figure(layout="constrained")
    chosen.plot(found, figure)
    figure.savefig(output / f"{name}.png", dpi=100)
    print(json.dumps(chosen.table(found), indent=2) if as_json else page)
