"""advanchor check: is this list of concepts sound?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advanchor.cli import common
from advanchor.cli.console import console, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from advanchor.batch.file import Batch
    from advanchor.batch.findings import Finding
    from advanchor.batch.spec import BatchSpec
    from advanchor.concepts import Concept
    from advanchor.models.base import Base


def check(
    concepts: Annotated[
        Path,
        typer.Argument(help="A batch, a YAML file with only concepts, or a CSV file of them.", show_default=False),
    ],
    retain: Annotated[
        Path | None, typer.Option(help="retain.yaml: prompts that are to keep their meaning.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="Base model, where the file names none.")] = "pocket",
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Compare names, without the model's text encoder.")
    ] = False,
    draw: Annotated[
        int, typer.Option(min=0, help="Pictures of each prompt: does the base draw the concept for it? 0: none made.")
    ] = 0,
    as_json: common.AsJson = False,
) -> None:
    """Find doubles, aliases, near-duplicates, and concepts that are also retained or that the base does not draw.

    Exit code 1 if there are any.
    """
    common.quiet()
    if draw and names_only:
        common.fail("--draw and --names-only exclude each other")
    from advanchor import models
    from advanchor.batch.findings import check as find
    from advanchor.batch.retain import read_retain

    with common.user_errors():
        read = read_concepts_of(concepts, model)
        listed = read.concepts
        told = read_retain(retain) if retain else None
        base = None if names_only else models.load(read.spec.base)
        if base:
            listed = [concept.with_prompts(base.profile.prompts) for concept in listed]
        findings = find(listed, told, base)
        if draw and base:
            findings += undrawn(listed, base, read.spec, draw)
    show(findings, len(listed), as_json)
    raise typer.Exit(common.SOME_FAILED if findings else common.OK)


def show(findings: "Sequence[Finding]", concepts: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
        return
    for finding in findings:
        say(f"{finding.kind}: {finding.message}")
    say(f"{concepts} concepts, {len(findings)} findings")


def undrawn(concepts: "Sequence[Concept]", base: "Base", spec: "BatchSpec", copies: int) -> "list[Finding]":
    """Concepts that the base does not draw, found in `copies` pictures of each prompt, while progress is shown."""
    from rich.progress import track

    from advanchor.batch import findings
    from advanchor.evaluation.scorers import scorer_for
    from advanchor.evaluation.settings import EvaluationSettings

    scorer = scorer_for(base, spec.evaluate, concepts)
    if scorer is None:
        common.fail(f"--draw: nothing can tell what pictures of {spec.base!r} show; set evaluate.scorer")
    shown = track(concepts, "drawing", console=console(stderr=True), transient=True)
    return findings.undrawn(shown, base, scorer, spec.evaluate or EvaluationSettings(), copies)


def read_concepts_of(path: Path, model: str) -> "Batch":
    """The batch, or one made of a file that lists concepts only. Raises BatchError."""
    from advanchor.batch.file import parse_batch, read_batch

    if path.suffix == ".csv":
        return parse_batch(f"model: {json.dumps(model)}\nconcepts: [{{from: {json.dumps(path.name)}}}]\n", path)
    return read_batch(path, model=model)
