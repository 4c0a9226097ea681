"""Progress of a run: one live table in a terminal, plain lines elsewhere, JSON lines for machines."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from advanchor.runtime.status import RunStatus, TaskRow

MANY = 24  # with more concepts than this only the running ones are listed
STYLES = {"done": "green", "running": "cyan", "failed": "red", "queued": "dim", "cancelled": "yellow"}


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def summary(status: "RunStatus") -> str:
    counts = [
        f"{n} {name}" for name in ("done", "running", "queued", "failed", "cancelled") if (n := status.count(name))
    ]
    elapsed = status.updated_at - status.started_at
    line = f"{', '.join(counts)} · {status.gangs} of {status.wanted_gangs} gangs ready · {elapsed:.0f} s"
    done = status.count("done")
    if status.count("running") and done:
        left = (len(status.tasks) - done) / done * elapsed
        line += f" · about {left:.0f} s left"
    return line


def doing(row: "TaskRow") -> str:
    """What a running task is at, or how a finished one did."""
    if row.status == "running":
        where = f"{row.phase} {row.step}/{row.total}" if row.total > 1 else row.phase or "starting"
        return where + (f", loss {row.loss:.4f}" if row.loss and row.phase == "student" else "")
    return row.reason[:90] if row.status in ("failed", "queued") else ""


def table(status: "RunStatus") -> Table:
    """Rows of concepts with their state and scores; concept names are shown as they are, never as markup."""
    shown = (
        status.tasks
        if len(status.tasks) <= MANY
        else [row for row in status.tasks if row.status in ("running", "failed")]
    )
    view = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("concept", "left"), ("kind", "left"), ("state", "left"), ("UA", "right"), ("IRA", "right"),
                          ("CRA", "right"), ("seconds", "right"), ("", "left")):  # fmt: skip
        view.add_column(name, justify=justify, no_wrap=name != "")  # type: ignore[arg-type]
    for row in shown:
        scores = row.scores or {}
        numbers = [percent(scores.get(name)) if row.status == "done" else "" for name in ("ua", "ira", "cra")]
        seconds = f"{row.seconds:.0f}" if row.seconds else ""
        cells = (row.name[:40], row.kind, Text(row.status, STYLES.get(row.status, "")), *numbers, seconds, doing(row))
        view.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return view


@contextmanager
def progress(as_json: bool, console: Console) -> Iterator[Callable[["RunStatus"], None]]:
    """A view for a run, which is called with every snapshot."""
    if as_json:
        yield JsonLines()
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield lambda status: live.update(Group(table(status), Text(summary(status), "dim")))
    else:
        yield PlainLines(console)


class PlainLines:
    """A line whenever a concept's state changes, and one every half minute."""

    def __init__(self, console: Console) -> None:
        self.console, self.seen, self.last = console, {}, 0.0

    def __call__(self, status: "RunStatus") -> None:
        for row in status.tasks:
            if row.status != self.seen.get(row.id, "queued"):
                self.seen[row.id] = row.status
                scores = row.scores or {}
                numbers = " ".join(f"{n.upper()} {percent(scores[n])}" for n in ("ua", "ira", "cra") if n in scores)
                self.console.print(Text(" ".join(filter(None, (row.status, row.name, numbers, row.reason)))))
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            self.console.print(Text(summary(status)))


class JsonLines:
    """A JSON object per change of a concept's state."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def __call__(self, status: "RunStatus") -> None:
        from dataclasses import asdict

        for row in status.tasks:
            if row.status != self.seen.get(row.id, "queued"):
                self.seen[row.id] = row.status
                print(json.dumps(asdict(row)), flush=True)
