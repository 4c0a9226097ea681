"""What a terminal shows while a run is on: a bar, the rate, the time left, what is being done, the last and the worst.

It is drawn for the size that the terminal has at that moment, and never taller than it.
"""

from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from advanchor.cli.console import cell
from advanchor.cli.live import STYLES, counts, duration, pace, percent, state

if TYPE_CHECKING:
    from advanchor.rundir.status import RunStatus, TaskRow

ENOUGH = 100  # columns of one table: eyes lose a row that is longer
WIDE = 120  # columns from which the last and the worst stand side by side
MOST_ROWS = 8  # of the last and of the worst
HEADER = 3  # lines above the tables: the bar, the counts, an empty one
NAME = 12  # columns of a concept's name, at least


class Dashboard:
    """Is told of every snapshot, and drawn as often as the terminal likes."""

    def __init__(self) -> None:
        self.status: RunStatus | None = None
        self.last: deque[TaskRow] = deque(maxlen=MOST_ROWS)  # done by this driver, the newest first
        self.seen: set[str] = set()

    def __call__(self, status: "RunStatus") -> None:
        done = [row for row in status.tasks if row.status == "done" and row.id not in self.seen]
        if self.status or not status.done_before:
            self.last.extendleft(done)
        self.seen |= {row.id for row in done}
        self.status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.status is None:
            return
        status, height = self.status, options.size.height - 1  # the last line is the cursor's
        yield bar(status)
        yield counted(status)
        yield Text()
        room = height - HEADER
        if len(status.tasks) < room:
            yield table("concept", status.tasks, ENOUGH)
            return
        yield from self.parts(status, options.max_width, room)

    def parts(self, status: "RunStatus", width: int, room: int) -> RenderResult:
        """Of many concepts: those that run, the last failure, the last and the worst."""
        running = [row for row in status.tasks if row.status == "running"]
        failed = [row for row in status.tasks if row.status == "failed"]
        below = MOST_ROWS + 2 if width >= WIDE else 2 * (min(MOST_ROWS, max(2, room // 6)) + 2)
        shown = max(1, room - below - 2 * bool(failed) - 2)
        more = f", {len(running) - shown} more" if len(running) > shown else ""
        yield table(f"running{more}", running[:shown], ENOUGH)
        if failed:
            yield line(f"failed: {failed[-1].name}: {failed[-1].reason}", STYLES["failed"])
        rest = room - 1 - min(len(running), shown) - bool(failed)
        scored = sorted((row for row in status.tasks if score(row) is not None), key=lambda row: score(row) or 0.0)
        if width >= WIDE:
            rows = max(0, min(MOST_ROWS, rest - 2))
            yield Text()
            yield beside(table("last done", list(self.last)[:rows]), table("worst so far", scored[:rows]))
            return
        rows = max(0, min(MOST_ROWS, rest // 2 - 2))
        for title, own in (("last done", list(self.last)), ("worst so far", scored)):
            yield Text()
            yield table(title, own[:rows], ENOUGH)


def score(row: "TaskRow") -> float | None:
    return (row.scores or {}).get("ua") if row.status == "done" else None


def beside(left: RenderableType, right: RenderableType) -> Table:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(left, right)
    return grid


def line(text: str, style: str) -> Text:
    found = cell(text, style)
    found.no_wrap, found.overflow = True, "ellipsis"
    return found


def bar(status: "RunStatus") -> Table:
    """How far it is, how fast it goes, how long it will take; what waits for a later driver is left out."""
    over = sum(status.count(name) for name in ("done", "failed", "cancelled"))
    total = len(status.tasks) - status.count("waiting")
    rate, left = pace(status)
    told = [f"{over} of {total}", f"{over / max(total, 1):.0%}"]
    told += [f"{rate * 3600:.0f}/h" if rate < 1 / 60 else f"{rate * 60:.1f}/min"] if rate else []
    told += [f"{duration(left)} left"] if left is not None else []
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(ProgressBar(total=max(total, 1), completed=over), Text(" · ".join(told), "bold"))
    return grid


def counted(status: "RunStatus") -> Text:
    """How many are at what, and what holds the run up."""
    found = Text(no_wrap=True, overflow="ellipsis")
    for number, name in counts(status):
        found.append(f"{number} {name}", STYLES[name])
        found.append(" · ", "dim")
    seconds = max(0.0, status.updated_at - status.started_at)
    found.append(f"{status.gangs} of {status.wanted_gangs} gangs · {duration(seconds)}", "dim")
    if status.note:
        found.append_text(cell(f" · {status.note}", "yellow"))
    return found


def table(title: str, rows: "list[TaskRow]", most: int = 0) -> RenderableType:
    """Concepts with their state and scores, one line each; as wide as there is room, or at most so many columns."""
    view = Table(box=None, pad_edge=False, header_style="bold", expand=True, padding=(0, 1, 0, 0))
    view.add_column(title, ratio=1, no_wrap=True, overflow="ellipsis", min_width=NAME)
    view.add_column("kind", no_wrap=True)
    view.add_column("", no_wrap=True, overflow="ellipsis")
    for name in ("UA", "IRA", "CRA", "s"):
        view.add_column(name, justify="right", no_wrap=True, min_width=6 if name != "s" else 4)
    for row in rows:
        scores = (row.scores or {}) if row.status == "done" else {}
        numbers = [percent(scores.get(name)) if row.status == "done" else "" for name in ("ua", "ira", "cra")]
        view.add_row(cell(row.name), cell(row.kind), state(row), *numbers, f"{row.seconds:.0f}" if row.seconds else "")
    return Constrain(view, most) if most else view
