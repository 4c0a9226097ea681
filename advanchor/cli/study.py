"""advanchor study: experiments on the pocket gallery, run through the product itself."""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advanchor import studies
from advanchor.cli import common
from advanchor.cli.console import console, say
from advanchor.cli.progress import progress

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
    only: Annotated[
        list[str] | None, typer.Option(help="A kind, or the label of a row; may be repeated. Default: all.")
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Make the page again from NAME.json, without erasing.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few erasures, next to no steps and pictures: does everything run?")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray and DeepSpeed.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Run a study and write NAME.md, NAME.json and NAME.png. Running it again only writes them."""
    common.quiet()
    check(name)
    if page:
        for one in studies.STUDIES if name == ALL else (name,):
            say(page_again(output / one))
        return
    from advanchor import models
    from advanchor.studies import lab

    base, size = models.load(lab.MODEL), lab.Size(per_kind, seeds, quick)
    done: list[lab.Found] = []
    output.mkdir(parents=True, exist_ok=True)
    for one in studies.STUDIES if name == ALL else (name,):
        chosen: lab.Study = studies.load(one)
        with ends(), progress(as_json, console(stderr=True)) as view:
            trials, found = narrowed(chosen.trials(base, size), only or []), []
            trials = lab.few(trials) if quick else trials
            while trials:
                found = lab.run(runs / chosen.folder, trials, lab.asked(chosen, size), view, local=local)
                more = chosen.further(base, size, chosen.rows(base, found, size))
                trials = [*trials, *more] if more else []
        command = f"advanchor {shlex.join(one if word == ALL else word for word in sys.argv[1:])}"
        erasures, seconds = lab.effort(found)
        content = {"command": command, "erasures": erasures, "rank_seconds": round(seconds)}
        content["rows"] = chosen.rows(base, found, size)
        write_figures(output / one, content)
        shown = page_again(output / one)
        if as_json:
            print(json.dumps(content["rows"], indent=2))
        else:
            say(shown)
        done += found
    if name == ALL:
        say(f"All of it: {lab.spent(*lab.effort(done))}", stderr=True)


def check(name: str) -> None:
    """End the program if there is no such study, or nothing that draws."""
    from advanchor.messages import choice

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
    from advanchor.runtime.errors import ClusterError

    try:
        with common.user_errors():
            yield
    except (ClusterError, RuntimeError) as error:
        common.fail(str(error), common.SOME_FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(common.INTERRUPTED) from None


def narrowed(trials: "Sequence[lab.Trial]", only: list[str]) -> "list[lab.Trial]":
    """The trials of the kinds and of the rows that are named; a word that names neither ends the program."""
    from advanchor.messages import choice

    kinds, labels = ({key(trial) for trial in trials} for key in (lambda t: t.concept.kind, lambda t: t.label))
    for word in only:
        if word not in kinds | labels:
            common.fail(f"--only {choice(word, sorted(kinds | labels))}")
    kinds, labels = kinds & set(only) or kinds, labels & set(only) or labels
    return [trial for trial in trials if trial.concept.kind in kinds and trial.label in labels]


def write_figures(path: Path, content: "dict[str, Any]") -> None:
    """PATH.json: all that the page is made from."""
    lines = ",\n".join(json.dumps(row) for row in content["rows"])  # a row per line, to be compared
    head = ", ".join(f"{json.dumps(key)}: {json.dumps(content[key])}" for key in content if key != "rows")
    path.with_suffix(".json").write_text(f'{{{head}, "rows": [\n{lines}\n]}}\n')


def page_again(path: Path) -> str:
    """The page PATH.md, which is returned, and the plot PATH.png, of the figures in PATH.json alone."""
    from matplotlib import pyplot

    chosen: lab.Study = studies.load(path.name)
    try:
        page, rows = page_of(path.name, chosen, json.loads(path.with_suffix(".json").read_text()))
    except OSError as error:
        common.fail(f"{path.with_suffix('.json')}: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        common.fail(f"{path.with_suffix('.json')} has no figures of this version's {path.name}: {error!r}")
    path.with_suffix(".md").write_text(page)
    figure = pyplot.figure(layout="constrained")
    chosen.plot(rows, figure)
    figure.savefig(path.with_suffix(".png"), dpi=100)
    pyplot.close(figure)
    return page


def page_of(name: str, chosen: "lab.Study", content: "dict[str, Any]") -> "tuple[str, list[lab.Row]]":
    """The page of a study's figures, and the rows that its tables show."""
    from advanchor.studies import lab

    rows = chosen.summary(content["rows"])
    head = f"# {chosen.title}\n\n    {content['command']}\n\n![]({name}.png)\n"
    spent = lab.spent(content["erasures"], content["rank_seconds"])
    return f"{head}\n{chosen.explained}\n\n{lab.tables(rows, chosen.columns)}\n{spent}\n", rows
