from pathlib import Path

import pytest
from published import attempt, entry, publish, scores, task, write_status

from advanchor.report import html
from advanchor.report.curves import HEIGHT, WIDTH, curve
from advanchor.report.html import page_of, whole_report, write_report
from advanchor.report.table import shortfall, worst_first
from advanchor.report.timeline import Bar, bars, stretches
from advanchor.rundir.store import Store


def row(ua: float | None, status: str = "done", ira: float = 1.0) -> dict:
    return {"status": status, "ua": ua, "ira": ira, "base_ira": 0.9, "cra": None, "base_cra": 0.5}


def test_the_shortfall_is_the_most_that_one_score_falls_short() -> None:
    assert shortfall(row(0.75)) == 0.25
    assert round(shortfall(row(0.75, ira=0.2)) or 0, 9) == 0.7
    assert shortfall({"ua": None, "ira": None, "base_ira": 1.0, "cra": None, "base_cra": None}) is None


def test_worst_first() -> None:
    table = [row(1.0), row(None, "queued", ira=1.0) | {"ira": None}, row(0.5), row(0.9, "earlier"), row(None, "failed")]
    assert [(found["status"], found["ua"]) for found in worst_first(table)] == [
        ("failed", None), ("done", 0.5), ("done", 1.0), ("queued", None), ("earlier", 0.9),
    ]  # fmt: skip


def test_the_page_lists_the_worst_first_and_says_how_the_batch_had_it(tmp_path: Path) -> None:
    store, made = Store(str(tmp_path)), [task("good"), task("bad"), task("broken")]
    publish(store, made[0], scores(1.0, ira=0.7))
    publish(store, made[1], scores(0.1))
    write_status(store, entry(made[0]), entry(made[1]), entry(made[2], "failed", "no such token", 3))
    page = Path(write_report(store)).read_text()
    body = page.partition("<tbody>")[2].partition("</table>")[0]
    assert body.index("broken") < body.index("bad") < body.index("good")
    assert 'data-rank="0" data-order="2" data-name="broken"' in body


def test_a_curve_has_the_base_at_0_and_the_delta_at_1() -> None:
    told = {"ua": 0.9, "ira": 0.8, "cra": 0.7, "base": {"ua": 0.1, "ira": 1.0}}
    found = curve(told | {"scales": {"2": {"ua": 1.0, "ira": 0.5}}})
    assert found and [point["scale"] for point in found["points"]] == [0.0, 1.0, 2.0]
    assert found["lines"]["ua"] == [(0.0, 0.9 * HEIGHT), (WIDTH / 2, 0.1 * HEIGHT), (WIDTH, 0.0)]
    assert "cra" not in found["lines"]  # one point is no line
    assert found["one"] == WIDTH / 2


def test_no_curve_without_scales_or_from_what_are_none() -> None:
    assert curve({"ua": 1.0}) is None
    for scales in ({"two": {}}, [], {"2": 3}, {"nan": {}}, {"1e300": {}}, {str(i): {} for i in range(99)}):
        assert curve({"ua": 1.0, "scales": scales}) is None
    found = curve({"ua": 1.0, "scales": {"2": {"ua": "<b>"}}})
    assert found and found["points"][-1]["ua"] is None


def record(start: float, end: float, event: str = "Succeeded", gang: int = 1) -> dict:
    return {"gang": gang, "node": "n", "started_at": start, "ended_at": end, "event": event}


def test_attempts_that_one_gang_started_together_are_one_bar() -> None:
    found = bars([("a", record(10, 12)), ("b", record(10, 14, "Broke")), ("c", record(10, 11, gang=2))])
    assert found == [Bar("gang 1 · n", 10, 14, "Broke", ("a", "b")), Bar("gang 2 · n", 10, 11, "Succeeded", ("c",))]
    assert found[0].label == "a, b: broke, 4.0 s"


def test_a_stretch_is_as_wide_as_its_time_and_a_long_pause_starts_another() -> None:
    attempts = [("a", record(0, 50)), ("b", record(50, 100)), ("c", record(25, 75, gang=2)), ("d", record(5000, 5010))]
    first, second = stretches(bars(attempts))
    assert [(bar["x"], bar["width"], bar["y"]) for bar in first.bars] == [(0, 500, 0), (250, 500, 24), (500, 500, 0)]
    assert first.lanes == ["gang 1 · n", "gang 2 · n"] and first.height == 48
    assert first.busy == 0.75  # 100 s of one lane and 50 s of the other, of 200 s
    assert (second.start, second.end, second.busy) == (5000, 5010, 1.0)


def test_overlapping_attempts_of_a_gang_count_once() -> None:
    (found,) = stretches(bars([("a", record(0, 100)), ("b", record(10, 20)), ("c", record(50, 100))]))
    assert found.busy == 1.0


def test_attempts_are_on_the_page_with_their_errors(tmp_path: Path) -> None:
    store, made = Store(str(tmp_path)), task("broken")
    attempt(store, made, 100.0, 130.0, "Broke", reason="OutOfMemoryError", details="Traceback ...\n<b>2 GiB</b>")
    write_status(store, entry(made, "failed", "OutOfMemoryError", 3))
    page = page_of(store, [], lambda folder, file: None).decode()
    assert "<title>broken: broke, 30.0 s</title>" in page
    assert "Traceback ...\n&lt;b&gt;2 GiB&lt;/b&gt;" in page
    assert 'href="#failures"' in page


def test_one_file_has_every_picture_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAX_EMBEDDED", 1)
    store = Store(str(tmp_path))
    for name in ("striped", "dotted"):
        publish(store, task(name), scores(1.0))
    linked, whole = Path(write_report(store)).read_text(), whole_report(store).decode()
    assert linked.count('src="../tasks/') == whole.count('src="data:image/png;base64,') == 4
    assert 'src="../' not in whole
