"""What is seen of a run: a live view that fits its terminal, plain lines in a log."""

import io

import pytest
from rich.console import Console

from advanchor.cli import live
from advanchor.cli.dashboard import Dashboard
from advanchor.cli.progress import progress
from advanchor.rundir.status import RunStatus, TaskRow

SIZES = [(80, 24), (160, 45), (80, 10), (200, 60)]


def status(total: int, done: int, running: int = 2, failed: int = 0) -> RunStatus:
    """Ten minutes into a run; the scores rise with the number, so that the first are the worst."""
    rows = [TaskRow(str(i), f"concept {i}", "style") for i in range(total)]
    for i, row in enumerate(rows[: done + failed]):
        row.status, row.seconds = ("done", 20.0) if i < done else ("failed", 3.0)
        row.scores = {"ua": 0.5 + i / 1000, "ira": 0.9, "cra": 1.0} if i < done else None
        row.reason = "" if i < done else "loss is not finite"
    for row in rows[done + failed : done + failed + running]:
        row.status, row.phase, row.step, row.total, row.loss = "running", "student", 3, 70, 0.0123
    return RunStatus("pocket", "esd", "running", tasks=rows, started_at=0.0, updated_at=600.0, gangs=2, wanted_gangs=2)


def drawn(view: Dashboard, width: int, height: int) -> list[str]:
    page = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    page.print(view)
    assert isinstance(page.file, io.StringIO)
    return [line.rstrip() for line in page.file.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("total", [1, 6, 20, 300])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_view_fits_its_terminal(width: int, height: int, total: int, share: float) -> None:
    """A view that is taller than its terminal scrolls it, which flickers."""
    view = Dashboard()
    view(status(total, 0, running=min(total, 40)))
    done = int(share * total)
    view(status(total, done, running=min(total - done, 40)))
    lines = drawn(view, width, height)
    assert len(lines) < height and max(map(len, lines)) <= width
    assert f"{done} of {total} · {share if total > 1 else done:.0%}" in lines[0]


def test_three_hundred_concepts_at_eighty_columns() -> None:
    view = Dashboard()
    view(status(300, 138))
    view(status(300, 140, failed=2))
    lines = drawn(view, 80, 24)
    assert lines[0].endswith("142 of 300 · 47% · 14.0/min · 11 min left")
    assert lines[1] == "140 done · 2 running · 156 queued · 2 failed · 2 of 2 gangs · 10 min"
    at = {
        title: next(i for i, line in enumerate(lines) if line.startswith(title))
        for title in ("last done", "worst so far")
    }
    assert lines[3].startswith("running") and "student 3/70 0.0123" in lines[4] and "concept 142" in lines[4]
    assert "failed: concept 141: loss is not finite" in lines
    assert lines[at["last done"] + 1].startswith("concept 139") and "63.9%" in lines[at["last done"] + 1]
    assert lines[at["worst so far"] + 1].startswith("concept 0") and "50.0%" in lines[at["worst so far"] + 1]


def test_the_last_and_the_worst_stand_side_by_side_where_there_is_room() -> None:
    view = Dashboard()
    view(status(300, 140))
    assert any("last done" in line and "worst so far" in line for line in drawn(view, 160, 45))


def test_what_was_done_before_is_neither_new_nor_fast() -> None:
    view, told = Dashboard(), status(300, 140)
    told.done_before = 140
    view(told)
    lines = drawn(view, 80, 24)
    assert lines[0].endswith("140 of 300 · 47%") and not any(line.startswith("concept 139") for line in lines)


def test_what_waits_for_a_later_run_is_neither_news_nor_to_be_done() -> None:
    told = status(6, 1, running=1)
    for row in told.tasks[2:]:
        row.status = "waiting"
    view = Dashboard()
    view(told)
    lines = drawn(view, 80, 24)
    assert "1 of 2 · 50%" in lines[0] and lines[1].startswith("1 done · 1 running · 4 waiting")
    page = Console(file=io.StringIO(), width=80)
    with progress(False, page) as log:
        log(told)
    assert isinstance(page.file, io.StringIO) and "concept 5" not in page.file.getvalue()


def test_names_do_not_steer_the_terminal() -> None:
    view, told = Dashboard(), status(2, 1)
    told.tasks[0].name, told.note = "\x1b]0;owned\x07[red]x", "wait\x1b[2J"
    view(told)
    text = "\n".join(drawn(view, 80, 24))
    assert "\\x1b]0;owned\\x07[red]x" in text and "wait\\x1b[2J" in text and "\x1b]" not in text


def test_a_log_has_a_line_per_change_and_no_bar() -> None:
    page = Console(file=io.StringIO(), width=80, markup=False, highlight=False)
    with progress(False, page) as view:
        view(status(3, 0, running=1))
        view(status(3, 1, running=1))
        view(status(3, 1, running=1))
    assert isinstance(page.file, io.StringIO)
    assert page.file.getvalue().splitlines() == [
        "running concept 0",
        "1 running, 2 queued · 2 of 2 gangs ready · 10 min",
        "done concept 0 UA 50.0% IRA 90.0% CRA 100.0%",
        "running concept 1",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (6000, "1 h 40 min")]
)
def test_durations_are_in_the_unit_that_one_would_say(seconds: float, text: str) -> None:
    assert live.duration(seconds) == text


def test_what_is_done_and_hardly_erased_does_not_look_green() -> None:
    weak, good, unscored = (TaskRow(name, name, "style", "done") for name in ("striped", "dotted", "solid"))
    weak.scores, good.scores = {"ua": 0.0}, {"ua": 0.9}
    assert [str(live.state(row)) for row in (weak, good, unscored)] == ["hardly erased", "done", "done"]
    assert str(live.state(weak).style) == "yellow"
    assert live.weak({"dotted": 0.9, "solid": None}) == ""
    line = live.weak({f"concept {i}": i / 100 for i in range(12)} | {"dotted": 0.9})
    assert line.startswith("warning: UA below 90%, hardly erased: concept 0 0.0%, concept 1 1.0%, ")
    assert "concept 9 9.0% and 2 more; " in line and "dotted" not in line
