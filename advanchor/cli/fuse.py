"""advanchor fuse: many erasures become one model."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from advanchor.cli import common, live
from advanchor.cli.console import cell, console, safe
from advanchor.cli.console import say as tell
from advanchor.cli.erase import Address, Insecure, Local
from advanchor.cli.progress import progress

if TYPE_CHECKING:
    from advanchor.fusion.artifact import Fusion
    from advanchor.fusion.gate import Bars, Examination
    from advanchor.fusion.repair import Tune
    from advanchor.runtime.place import Place

Names = list[str] | None
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Run directories; one may be a fused model, which is then added to or taken from.",
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Option("--output", "-o", help="New folder for the fused model.", metavar="DIR")]
Method = Annotated[
    str | None,
    typer.Option(
        help="How they are fused: auto (each kind as suits it), or a way of docs/fusion.md.", show_default="auto"
    ),
]
Only = Annotated[Names, typer.Option(help="Fuse only this concept; may be repeated.", metavar="NAME")]
Without = Annotated[Names, typer.Option(help="Leave this concept out; may be repeated.", metavar="NAME")]
Accepted = Annotated[
    bool, typer.Option("--accepted", help="Of runs, only what a person has accepted: `advanchor review`.")
]
Retained = Annotated[
    Path | None, typer.Option(help="retain.yaml: prompts that must keep their meaning.", show_default=False)
]
Changes = Annotated[
    Names, typer.Option("--set", help="Change a setting: --set ridge=1e-4, --set bars.ua=0.8.", metavar="KEY=VALUE")
]
Pipeline = Annotated[bool, typer.Option("--pipeline", help="Write a whole pipeline for diffusers, too.")]
Examined = Annotated[
    bool, typer.Option("--gate/--no-gate", help="Examine every concept in the fused model, where that is possible.")
]
Repair = Annotated[bool, typer.Option("--repair", help="Mend what does not pass, and fuse again.")]

say = partial(tell, stderr=True)


def fuse(
    sources: Sources,
    output: Folder,
    method: Method = None,
    only: Only = None,
    without: Without = None,
    accepted: Accepted = False,
    retain: Retained = None,
    overrides: Changes = None,
    pipeline: Pipeline = False,
    gate: Examined = True,
    repair: Repair = False,
    local: Local = False,
    address: Address = None,
    insecure_no_token: Insecure = False,
    as_json: common.AsJson = False,
) -> None:
    """Fuse finished erasures into one model. Exit code 1 if a concept, or what is retained, falls below its bar."""
    common.quiet()
    from advanchor.batch.retain import read_retain
    from advanchor.fusion.make import Wanted, make, working
    from advanchor.report.fused import write_fused_report
    from advanchor.runtime.place import Place, refuse

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        common.fail(f"--output {output}: is not empty; choose another folder")
    place, beside = Place(local, address, insecure_no_token), working(output)
    with ends(beside):
        if repair:
            refuse(place)
        changes, examination, bars = changed(method, overrides or [])
        told = read_retain(retain) if retain else None
        wanted = Wanted(sources, changes, told, only or (), without or (), accepted, gate, examination, bars, pipeline)
        fusion = make(wanted, output, say, partial(tuned, beside, place, as_json) if repair else None)
    shutil.rmtree(beside, ignore_errors=True)
    write_fused_report(output)
    show(fusion, output, as_json)
    raise typer.Exit(common.SOME_FAILED if fusion.verdict and not fusion.verdict["passed"] else common.OK)


@contextmanager
def ends(beside: Path) -> Iterator[None]:
    """What fails or is interrupted ends the program in words."""
    from advanchor.fusion.member import FusionError
    from advanchor.fusion.neurons import TextEncoderError
    from advanchor.runtime.errors import ClusterError

    with common.user_errors():
        try:
            yield
        except (ClusterError, FusionError, TextEncoderError) as error:
            common.fail(str(error))
        except KeyboardInterrupt:
            common.fail(f"interrupted; the same command goes on with what is in {beside}", common.INTERRUPTED)


@contextmanager
def tuned(beside: Path, place: "Place", as_json: bool) -> "Iterator[Tune]":
    """What retrains deltas for repairs, in a folder, while its progress is shown."""
    from advanchor.runtime.repairs import tuner

    with progress(as_json, console(stderr=True)) as view:
        yield tuner(beside, place, view, say)


def changed(method: str | None, overrides: list[str]) -> "tuple[dict[str, Any], Examination, Bars]":
    """Settings that are to differ, how the fused model is examined, and its bars. Raises BatchError."""
    from pydantic import ValidationError

    from advanchor.batch.file import set_override
    from advanchor.batch.spec import BatchError
    from advanchor.fusion.gate import Bars, Examination
    from advanchor.fusion.ways import FusionSettings
    from advanchor.messages import reason

    data: dict[str, Any] = {"method": method} if method else {}
    for override in overrides:
        set_override(data, override)
    sections = {"evaluate": (Examination, data.pop("evaluate", {})), "bars": (Bars, data.pop("bars", {}))}
    sections["settings"] = (FusionSettings, data)
    made, problems = {}, []
    for name, (model, values) in sections.items():
        try:
            made[name] = model.model_validate(values)
        except ValidationError as error:
            prefix = () if name == "settings" else (name,)
            choices = [*model.model_fields, *(() if prefix else ("evaluate", "bars"))]
            for details in error.errors():
                where = ".".join(map(str, (*prefix, *details["loc"])))
                problems.append(f"--set {where}: {reason(details, choices)}")
    if problems:
        raise BatchError(problems)
    return data, made["evaluate"], made["bars"]


def show(fusion: "Fusion", folder: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"folder": str(folder), "facts": fusion.facts, "verdict": fusion.verdict}, indent=2))
        return
    if fusion.verdict is None:
        tell("not examined", "dim")
    else:
        show_verdict(fusion.verdict)
    tell(f"{len(fusion.members)} concepts in {safe(folder)}")
    tell(f"report: {safe(folder / 'report.html')}")
    if (folder / "pipeline").exists():
        tell(f"model: {safe(folder / 'pipeline')}, which diffusers' from_pretrained takes")


def show_verdict(verdict: Mapping[str, Any]) -> None:
    """A table of few concepts, lines for those below the bar, and what is left of all else."""
    examined = [row for row in verdict["concepts"] if row["ua"] is not None]
    if 0 < len(examined) <= live.MANY:
        console().print(table(examined))
    for row in examined:
        if row["passed"] is False:
            tell(f"below the bar: {safe(row['name'])}: UA {100 * row['ua']:.1f} %", "red")
    for row in verdict["retained"]:
        if row["value"] is None:
            text = f"retained {row['attribute']}: {100 * row['fused']:.1f} % (base {100 * row['base']:.1f} %)"
            tell(text, "red" if not row["passed"] else "")
    if examined:
        passed = sum(row["passed"] for row in examined)
        tell(f"{passed} of {len(examined)} concepts reach a UA of {verdict['bars']['ua']:.0%} in the fused model")


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """UA of every concept by its own erasure and in the fused model, and their means."""
    view = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("concept", "kind", "UA alone", "UA fused"):
        view.add_column(title, justify="left" if title in ("concept", "kind") else "right", no_wrap=True)
    for row in rows:
        uas = (cell(live.percent(row["ua_alone"])), cell(live.percent(row["ua"]), "" if row["passed"] else "red"))
        view.add_row(cell(row["name"][:40]), cell(row["kind"]), *uas)
    alone = [row["ua_alone"] for row in rows if row["ua_alone"] is not None]
    means = (sum(uas) / len(uas) if uas else None for uas in (alone, [row["ua"] for row in rows]))
    view.add_row(cell("mean", "bold"), "", *(cell(live.percent(mean), "bold") for mean in means))
    return view
