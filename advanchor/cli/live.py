"""A run's state in words, numbers and a table, for a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from advanchor.cli.console import cell

if TYPE_CHECKING:
    from advanchor.rundir.status import RunStatus, TaskRow

MANY = 24  # with more concepts than this only the running ones are listed
WEAK = "hardly erased"  # the state of what is done and below the bar
MAX_WEAK = 10  # concepts that a warning names
STYLES = {"done": "green", "running": "cyan", "failed": "red", "queued": "dim", "cancelled": "yellow", "waiting": "dim"}


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def duration(seconds: float) -> str:
    """In the unit that a person would say."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def counts(status: "RunStatus") -> list[tuple[int, str]]:
    states = ("done", "running", "queued", "failed", "cancelled", "waiting")
    return [(n, name) for name in states if (n := status.count(name))]


def pace(status: "RunStatus") -> tuple[float, float | None]:
    """Concepts that this driver has done per second, and seconds that are left; None before it can be told."""
    done, elapsed = status.count("done") - status.done_before, status.updated_at - status.started_at
    if done < 1 or elapsed <= 0:
        return 0.0, None
    unfinished = status.count("running") + status.count("queued")
    return done / elapsed, unfinished * elapsed / done if unfinished else None


def summary(status: "RunStatus") -> str:
    """One line for logs."""
    told = ", ".join(f"{number} {name}" for number, name in counts(status))
    elapsed = max(0.0, status.updated_at - status.started_at)
    line = f"{told} · {status.gangs} of {status.wanted_gangs} gangs ready · {duration(elapsed)}"
    line += f" · {status.note}" if status.note else ""
    _, left = pace(status)
    return line + (f" · about {duration(left)} left" if left is not None and status.count("running") else "")


def weak(uas: Mapping[str, float | None]) -> str:
    """A warning that names concepts which are done and hardly erased, the worst first; empty if there are none."""
    from advanchor.evaluation.settings import BAR, is_weak

    found = sorted((ua, name) for name, ua in uas.items() if ua is not None and is_weak(ua))
    if not found:
        return ""
    named = ", ".join(f"{name} {percent(ua)}" for ua, name in found[:MAX_WEAK])
    more = f" and {len(found) - MAX_WEAK} more" if len(found) > MAX_WEAK else ""
    return f"warning: UA below {BAR:.0%}, hardly erased: {named}{more}; more steps or a higher lr erase more"


def is_done_weakly(row: "TaskRow") -> bool:
    from advanchor.evaluation.settings import is_weak

    return row.status == "done" and is_weak((row.scores or {}).get("ua"))


def state(row: "TaskRow") -> Text:
    """Where a task is; of a running one, its phase, step and loss."""
    if is_done_weakly(row):
        return cell(WEAK, "yellow")
    if row.status != "running":
        return cell(row.status, STYLES.get(row.status, ""))
    where = f"{row.phase} {row.step}/{row.total}" if row.total > 1 else row.phase or "starting"
    loss = f" {row.loss:.4f}" if row.loss and row.phase == "student" else ""
    return cell(where + loss, STYLES["running"])


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
        view.add_row(cell(row.name), cell(row.kind), state(row), *numbers, f"{row.seconds:.0f}" if row.seconds else "")
    return view
