"""advanchor fuse: many erasures become one model."""

import enum
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from advanchor.cli import common, live
from advanchor.cli.erase import Address, Insecure, Local

if TYPE_CHECKING:
    from advanchor.evaluation import EvaluationSettings
    from advanchor.fusion.artifact import Fusion
    from advanchor.fusion.gate import Bars
    from advanchor.models.base import Base


class Method(enum.StrEnum):
    closed_form = "closed_form"
    anchor_edit = "anchor_edit"
    task_arithmetic = "task_arithmetic"
    neurons = "neurons"


Names = list[str] | None
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Run directories; one may be a fused model, which is then added to or taken from.",
        show_default=False,
    ),
]


def fuse(
    sources: Sources,
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the fused model.", metavar="DIR")],
    method: Annotated[Method | None, typer.Option(help="How they are fused.", show_default="closed_form")] = None,
    only: Annotated[Names, typer.Option(help="Fuse only this concept; may be repeated.", metavar="NAME")] = None,
    without: Annotated[Names, typer.Option(help="Leave this concept out; may be repeated.", metavar="NAME")] = None,
    retain: Annotated[
        Path | None, typer.Option(help="retain.yaml: prompts that must keep their meaning.", show_default=False)
    ] = None,
    overrides: Annotated[
        Names, typer.Option("--set", help="Change a setting: --set ridge=1e-4, --set bars.ua=0.8.", metavar="KEY=VALUE")
    ] = None,
    pipeline: Annotated[bool, typer.Option("--pipeline", help="Write a whole pipeline for diffusers, too.")] = False,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="Examine every concept in the fused model, where that is possible.")
    ] = True,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what does not pass, and fuse again.")] = False,
    local: Local = False,
    address: Address = None,
    insecure_no_token: Insecure = False,
    as_json: common.AsJson = False,
) -> None:
    """Fuse finished erasures into one model. Exit code 1 if a concept, or what is retained, falls below its bar."""
    common.quiet()
    from advanchor import models
    from advanchor.fusion.artifact import write_fused
    from advanchor.fusion.neurons import TextEncoderError
    from advanchor.fusion.retain import read_retain
    from advanchor.report.fused import write_fused_report
    from advanchor.runtime import accept
    from advanchor.runtime.drive import ClusterError, Place
    from advanchor.runtime.fuse import FusionError, plan_fusion
    from advanchor.runtime.fuse import fuse as run
    from advanchor.runtime.store import StoreError

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        common.fail(f"--output {output}: is not empty; choose another folder")
    say = Console(stderr=True, highlight=False).print
    with common.user_errors():
        try:
            changes, examination, bars = changed(method, overrides or [])
            told = read_retain(retain) if retain else None
            plan = plan_fusion(sources, changes, told, only=only or (), without=without or ())
            base = models.load(plan.base)
            fusion = run(plan, base)
            judge = accept.make_gate(base, examination, bars) if gate or repair else None
            repairs: dict[str, bytes] = {}
            if judge:
                fusion.verdict = judge.verdict(fusion)
                if repair:
                    with live.progress(as_json, Console(stderr=True)) as view:
                        place = Place(local, address, insecure_no_token)
                        tune = accept.tuner(working_folder(output), place, view, say)
                        fusion, repairs = accept.repair(fusion, judge, output.resolve(), tune, say)
        except (ClusterError, FusionError, StoreError, TextEncoderError) as error:
            common.fail(str(error))
        except KeyboardInterrupt:
            common.fail(f"interrupted; the same command goes on with what is in {working_folder(output)}", 130)
        write_fused(fusion, output, pipeline_writer(base, fusion) if pipeline else None, repairs)
    shutil.rmtree(working_folder(output), ignore_errors=True)
    write_fused_report(output)
    show(fusion, output, as_json)
    raise typer.Exit(common.SOME_FAILED if fusion.verdict and not fusion.verdict["passed"] else common.OK)


def changed(method: Method | None, overrides: list[str]) -> "tuple[dict[str, Any], EvaluationSettings, Bars]":
    """Settings that are to differ, how the fused model is examined, and its bars. Raises BatchError."""
    from pydantic import ValidationError

    from advanchor.batch_file import set_override
    from advanchor.explain import reason
    from advanchor.fusion.gate import Bars
    from advanchor.fusion.solve import FusionSettings
    from advanchor.runtime.accept import Examination
    from advanchor.spec import BatchError

    data: dict[str, Any] = {"method": method.value} if method else {}
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


def working_folder(output: Path) -> Path:
    """Where repairs run until the fusion is written; on a cluster all nodes must see it."""
    return output.absolute().with_name(f"{output.name}.repairs")


def pipeline_writer(base: "Base", fusion: "Fusion") -> Callable[[Path], None]:
    """Writes the fused model as a diffusers pipeline."""

    def write(folder: Path) -> None:
        with fusion.on(base):
            base.pipeline.save_pretrained(folder, safe_serialization=True)

    return write


def show(fusion: "Fusion", folder: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"folder": str(folder), "facts": fusion.facts, "verdict": fusion.verdict}, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{len(fusion.members)} concepts in {folder}", markup=False)
    if fusion.verdict is None:
        console.print("not examined", style="dim")
        return
    for row in fusion.verdict["concepts"]:
        if row["passed"] is False:
            text = f"below the bar: {row['name']}: UA {100 * row['ua']:.1f} %"
            console.print(text, style="red", markup=False)
    for row in fusion.verdict["retained"]:
        if row["value"] is None:
            text = f"retained {row['attribute']}: {100 * row['fused']:.1f} % (base {100 * row['base']:.1f} %)"
            console.print(text, style="red" if not row["passed"] else "", markup=False)
