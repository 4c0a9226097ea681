"""advanchor export: erasures in the forms that other tools load."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from advanchor.cli import common
from advanchor.cli.console import say


class Format(enum.StrEnum):
    lora = "lora"
    kohya = "kohya"
    diffusers = "diffusers"
    checkpoint = "checkpoint"


def export(
    place: Annotated[
        str, typer.Argument(help="A run directory, one task's folder, or a fused model.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.", show_default=False)],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="lora: PEFT names, for diffusers and ComfyUI. kohya: sd-scripts' names. diffusers: merged pipelines. "
            "checkpoint: merged single files.",
        ),
    ] = Format.lora,
    error: Annotated[
        float, typer.Option(min=1e-4, max=0.5, help="What a LoRA may lose of the edit, on the concept's own prompts.")
    ] = 0.01,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Say what a push to this Hub repository would send.")
    ] = None,
    really: Annotated[bool, typer.Option("--really", help="With --push: send it.")] = False,
) -> None:
    """Write every erasure of a source as a LoRA or a merged model, with a model card.

    A LoRA's rank is the smallest whose error is within --error. Each export is loaded again by diffusers in a fresh
    process; how far its predictions are from the erasure's is printed and stands in the file.
    """
    common.quiet()
    if really and not push:
        common.fail("--really goes with --push OWNER/NAME, and only with it")
    from advanchor.export.lora import ExportError
    from advanchor.export.write import export as run

    with common.user_errors():
        try:
            done = run(place, output, form.value, error, say)
            say(f"{output / 'README.md'}: a model card of {sum(len(source.concepts) for source in done)} concepts")
            if push:
                pushed(output, push, really)
        except (ExportError, OSError) as problem:
            common.fail(str(problem))


def pushed(folder: Path, repository: str, really: bool) -> None:
    """Send a folder to the Hub, or say what would be sent."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not really:
        for path in files:
            say(f"would send {path.relative_to(folder)} ({path.stat().st_size:,} bytes) to {repository}")
        say("nothing was sent; --really sends it")
        return
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True, private=True)
        say(api.upload_folder(repo_id=repository, folder_path=folder))
    except (HfHubHTTPError, OSError) as error:
        common.fail(f"--push {repository}: {error}", common.SOME_FAILED)
