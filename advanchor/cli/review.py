"""advanchor review: a person looks at the pictures and says which erasures are good."""

import contextlib
import getpass
from typing import Annotated

import typer

from advanchor.cli import common
from advanchor.cli.console import safe, say, warn


def review(
    run: common.RunDirectory,
    port: Annotated[int, typer.Option(help="The page's, on 127.0.0.1; 0: any free one.", min=0, max=65535)] = 0,
    by: Annotated[str | None, typer.Option(help="Who reviews; default: your user name.", show_default=False)] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Look at every erasure and accept it, ask for another try, or reject it. Ctrl-C ends it; every verdict is kept."""
    import asyncio
    import signal
    import webbrowser

    from advanchor.report.review import Review, serve
    from advanchor.rundir.store import Store

    with common.user_errors():
        store = Store(run)
        if not store.results():
            common.fail(f"{run} has no results: it is not a run directory, or nothing is done yet")
    warn(store.damaged)
    reviewing = Review(store, (by or user())[:200])

    def started(address: str) -> None:
        say(f"review: {safe(address)}")
        say("only who has this address can give verdicts; Ctrl-C ends it", "dim")
        if show:
            webbrowser.open(address)

    async def until_stopped() -> None:
        task = asyncio.ensure_future(serve(reviewing, port, started))
        for stop in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(stop, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(until_stopped())
    except OSError as error:
        common.fail(f"--port {port}: {error.strerror or error}")
    say(f"verdicts given: {reviewing.given}")


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return ""
