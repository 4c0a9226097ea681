from pathlib import Path

from published import entry, publish, scores, task, write_status

from advanchor.report.compare import compare, compared
from advanchor.rundir.store import Store


def row(name: str, ua: float | None, ira: float | None = None, status: str = "done") -> dict:
    return {"name": name, "kind": "style", "status": status, "ua": ua, "ira": ira, "cra": None}


def test_outcomes() -> None:
    before = [
        row("worse", 0.9), row("better", 0.5), row("mixed", 0.5, 0.9), row("same", 0.9), row("gone", 1.0),
        row("broke", 1.0), row("mended", None, status="failed"), row("unscored", None),
    ]  # fmt: skip
    after = [
        row("worse", 0.8), row("better", 0.9), row("mixed", 0.9, 0.5), row("same", 0.905), row("new", 1.0),
        row("broke", None, status="failed"), row("mended", 0.3), row("unscored", None),
        row("gone", 1.0, status="earlier"),
    ]  # fmt: skip
    found = {one["name"]: one["outcome"] for one in compared(before, after)}
    assert found == {
        "worse": "worse", "better": "better", "mixed": "mixed", "same": "same", "gone": "only in A", "new": "only in B",
        "broke": "worse", "mended": "better", "unscored": "same",
    }  # fmt: skip


def test_the_largest_loss_comes_first() -> None:
    names = "abc"
    found = compared([row(name, 1.0) for name in names], [row("a", 0.9), row("b", 0.2), row("c", 1.0)])
    assert [one["name"] for one in found] == ["b", "a", "c"]


def test_the_page(tmp_path: Path) -> None:
    stores = [Store(str(tmp_path / name)) for name in ("<a>", "b")]
    for store, ua in zip(stores, (0.9, 0.4), strict=True):
        publish(store, task("<i>striped</i>"), scores(ua))
        write_status(store, entry(task("<i>striped</i>")))
    page, told = compare(*stores)
    text = page.decode()
    assert told["counts"] == {"worse": 1} and told["means"]["ua"] == [0.9, 0.4]
    assert "\N{MINUS SIGN}50.0" in text and "&lt;i&gt;striped&lt;/i&gt;" in text
    assert "<i>" not in text and "<a>" not in text
