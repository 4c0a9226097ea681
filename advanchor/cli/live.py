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
    if status.note:
        line += f" · {status.note}"
    done, running = status.count("done") - status.done_before, status.count("running")
    if running and done:
        left = (running + status.count("queued")) / done * elapsed
        line += f" · about {left:.0f} s left"
    return line


def state(row: "TaskRow") -> Text:
    """Where a task is; of a running one, its phase, step and loss."""
    if row.status != "running":
        return Text(row.status, STYLES.get(row.status, ""))
    where = f"{row.phase} {row.step}/{row.total}" if row.total > 1 else row.phase or "starting"
    loss = f" {row.loss:.4f}" if row.loss and row.phase == "student" else ""
    return Text(where + loss, STYLES["running"])


def table(status: "RunStatus") -> Table:
    """Rows of concepts with their state and scores; concept names are shown as they are, never as markup."""
    shown = status.tasks
    if len(shown) > MANY:
        shown = [row for row in shown if row.status in ("running", "failed")]
    view = Table(box=None, pad_edge=False, header_style="bold")
    view.add_column("concept", no_wrap=True, overflow="ellipsis", max_width=28)
    view.add_column("kind", no_wrap=True)
    view.add_column("state", no_wrap=True)
    for name in ("UA", "IRA", "CRA", "s"):
        view.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        scores = row.scores or {}
        numbers = [percent(scores.get(name)) if row.status == "done" else "" for name in ("ua", "ira", "cra")]
        view.add_row(Text(row.name), row.kind, state(row), *numbers, f"{row.seconds:.0f}" if row.seconds else "")
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
                self.console.print(
                    Text(" ".join(filter(None, (row.status, row.name, numbers, row.reason)))), soft_wrap=True
                )
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
