"""Progress of a run: a live view in a terminal (dashboard.py), plain lines elsewhere, JSON lines for machines."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from advanchor.cli.console import cell
from advanchor.cli.dashboard import Dashboard
from advanchor.cli.live import percent, summary

if TYPE_CHECKING:
    from advanchor.rundir.status import RunStatus


@contextmanager
def progress(as_json: bool, console: Console) -> Iterator[Callable[["RunStatus"], None]]:
    """A view for a run, which is called with every snapshot."""
    if as_json:
        yield JsonLines()
    elif console.is_terminal:
        view = Dashboard()
        with Live(view, console=console, refresh_per_second=4, transient=True):
            yield view
    else:
        yield PlainLines(console)


class PlainLines:
    """A line whenever a concept's state changes, and one every half minute."""

    def __init__(self, console: Console) -> None:
        self.console, self.seen, self.last = console, {}, 0.0

    def __call__(self, status: "RunStatus") -> None:
        for row in status.tasks:
            if row.status not in (self.seen.get(row.id, "queued"), "waiting"):
                self.seen[row.id] = row.status
                scores = row.scores or {}
                numbers = " ".join(f"{n.upper()} {percent(scores[n])}" for n in ("ua", "ira", "cra") if n in scores)
                line = " ".join(filter(None, (row.status, row.name, numbers, row.reason)))
                self.console.print(cell(line), soft_wrap=True)
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            self.console.print(cell(summary(status)))


class JsonLines:
    """A JSON object per change of a concept's state."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def __call__(self, status: "RunStatus") -> None:
        from dataclasses import asdict

        for row in status.tasks:
            if row.status not in (self.seen.get(row.id, "queued"), "waiting"):
                self.seen[row.id] = row.status
                print(json.dumps(asdict(row)), flush=True)
