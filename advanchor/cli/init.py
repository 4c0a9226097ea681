"""advanchor init: a list of names becomes a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advanchor.cli import common
from advanchor.cli.console import say

if TYPE_CHECKING:
    from advanchor.batch.lists import Answers
    from advanchor.concepts import Concept

FIELDS = ("name", "kind", "similar", "templates", "neutral")


def init(
    names: Annotated[
        Path, typer.Argument(help="A CSV file, or a text with one name a line.", metavar="LIST", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Base model: pocket, a folder, or a hub id[@revision].")] = "pocket",
    output: Annotated[Path, typer.Option("--output", "-o", help="The batch to write.")] = Path("batch.yaml"),
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="style, object, identity or explicit, where the list names none; artist=style: what a word means."
        ),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Which column is what: name=Maler.", metavar="FIELD=TITLE")
    ] = None,
    encoding: Annotated[str, typer.Option(help="The list's, where it cannot be told: cp1251, shift_jis, ...")] = "",
    clip: Annotated[
        str, typer.Option(help="What scores pictures of models without a scorer of their own; none: nothing.")
    ] = "openai/clip-vit-large-patch14",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the batch if there is one.")] = False,
) -> None:
    """Write a commented batch for a list of names. What the list leaves open is asked for, never guessed in silence."""
    common.quiet()
    answers = answers_of(kind or (), column or (), encoding)
    if output.exists() and not force:
        common.fail(f"{output} is there already; --force overwrites it")
    common.check_new_file("--output", output)
    from advanchor.batch.file import parse_batch
    from advanchor.batch.starter import Starter, text

    with common.user_errors():
        concepts = read(names, answers)
        starter = Starter(model, concepts, "" if clip == "none" else clip)
        if not starter.is_gallery() and not starter.pipeline():
            say(f"{model}: its architecture is not known before it is fetched: the settings are general ones", "yellow")
        batch = text(starter, names.name, output)
        assert parse_batch(batch, output).concepts == concepts, "a batch that reads otherwise than its list"
    try:
        output.write_text(batch, encoding="utf-8")
    except OSError as error:
        common.fail(f"--output {output}: cannot be written: {error.strerror}")
    say(f"{output}: {len(concepts)} concepts for {model}; next: advanchor check {output}")


def read(names: Path, answers: "Answers") -> "Sequence[Concept]":
    """What a list says, with notes for its reader. Exit code 2 where it leaves something open."""
    from advanchor.batch.lists import read_list
    from advanchor.batch.sources import SourceError

    try:
        listed = read_list(names, answers)
    except SourceError as error:
        common.fail(str(error))
    for note in listed.notes:
        say(f"{names.name}: {note}", "dim", stderr=True)
    if listed.problems:
        common.fail("\n".join(listed.problems))
    return listed.concepts


def answers_of(kinds: Sequence[str], columns: Sequence[str], encoding: str) -> "Answers":
    """The options, checked. Exit code 2 for a kind or field that there is not."""
    from advanchor.batch.lists import Answers
    from advanchor.concepts import KINDS
    from advanchor.messages import choice

    meant = dict(pair("--kind", told) if "=" in told else ("", told) for told in kinds)
    for own in meant.values():
        if own not in KINDS:
            common.fail(f"--kind: {choice(own, KINDS)}")
    titles = dict(pair("--column", told) for told in columns)
    for name in titles:
        if name not in FIELDS:
            common.fail(f"--column: {choice(name, FIELDS)}")
    return Answers(meant.pop("", ""), meant, titles, encoding)


def pair(option: str, told: str) -> tuple[str, str]:
    key, separator, value = (part.strip() for part in told.partition("="))
    if not (key and separator and value):
        common.fail(f"{option} {told!r}: is not of the form A=B")
    return key, value
