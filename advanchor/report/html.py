"""The report of a run: one HTML file that needs nothing but a browser, however it is mailed, archived or printed.

Whatever the run directory says may have been written by anybody: names, reasons and file names are only ever text.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from advanchor.evaluation.settings import BAR, is_weak
from advanchor.report.cards import Show, cards, failures, methods
from advanchor.report.pictures import picture, write_overview
from advanchor.report.table import rows_of, shortfall, summary, worst_first
from advanchor.report.text import environment
from advanchor.report.timeline import bars, stretches
from advanchor.rundir.status import read_status
from advanchor.rundir.storage import DamagedError
from advanchor.rundir.store import Store

REPORT = "report/index.html"
MAX_EMBEDDED = 12_000_000  # bytes of pictures; more are linked, so that the page stays quick


def write_report(store: Store) -> str:
    """Write report/index.html, and overview.png beside it, from what the run directory holds now; returns its path."""
    results = store.results()
    show = partial(picture, store, embed=weight(results) <= MAX_EMBEDDED)
    store.write(REPORT, page_of(store, results, show))
    order = {row["task"]: i for i, row in enumerate(rows_of(store, results))}
    write_overview(store, sorted(results, key=lambda result: order[result["task"]]))
    return store.path(REPORT)


def weight(results: Sequence[Mapping[str, Any]]) -> int:
    """Bytes of all their pictures."""
    entries = [entry for result in results for entry in (result.get("files") or {}).values()]
    return sum(entry["bytes"] for entry in entries if entry["name"].endswith(".png"))


def whole_report(store: Store) -> bytes:
    """The report with every picture in it, to be mailed."""
    return page_of(store, store.results(), partial(picture, store, embed=True))


def page_of(store: Store, results: Sequence[Mapping[str, Any]], show: Show, *, review: bool = False) -> bytes:
    """The page. review: with buttons for verdicts, which only `advanchor review` can receive."""
    snapshot = read_status(store)
    status = snapshot.to_json() if snapshot else {}
    batch = (store.read("batch.yaml") or b"").decode(errors="replace")
    table = [
        row | {"order": i, "shortfall": shortfall(row), "weak": row["status"] == "done" and is_weak(row["ua"])}
        for i, row in enumerate(rows_of(store, results))
    ]
    attempts = attempts_of(store)
    names = {row["task"]: row["name"] for row in table}
    listed = worst_first(table)
    settings, settings_of = methods(results)
    by_id = {result["task"]: result for result in results}
    named = [(names.get(task, task), record) for task, own in attempts.items() for record in own]
    page = environment().get_template("report.html.j2").render(
        heading=heading(plan_of(store), status, results),
        status=status,
        rows=listed,
        kinds=unique(row["kind"] for row in table),
        states=unique(row["status"] for row in listed),
        summary=summary(table),
        cards=cards(listed, by_id, attempts, show),
        methods=settings,
        settings_of=settings_of,
        failures=failures(listed),
        stretches=stretches(bars(named)),
        batch=batch,
        review=review,
        bar_of_ua=BAR,
    )  # fmt: skip
    return page.encode(errors="replace")


def attempts_of(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Every attempt on record, in order, by the task's id."""
    found: dict[str, list[dict[str, Any]]] = {}
    for folder, record in sorted(store.every_attempt(), key=lambda item: item[1]["started_at"]):
        found.setdefault(folder.rpartition("-")[2], []).append(record)
    return found


def heading(plan: Any, status: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Model, methods and seed: what the results say, or what the run set out to do where there are none yet."""
    return {
        "models": unique(result["base"] for result in results) or [status.get("model", "an unknown model")],
        "methods": unique(result["method"]["name"] for result in results) or [status.get("method", "not known yet")],
        "seed": batch_seed(plan),
    }


def plan_of(store: Store) -> Any:
    """plan.json; None if it cannot be read."""
    try:
        return store.read_json("plan.json")
    except DamagedError:
        return None


def batch_seed(plan: Any) -> int | None:
    """The seed that a plan.json holds; None if there is no telling."""
    spec = plan.get("spec") if isinstance(plan, dict) else None
    return spec.get("seed") if isinstance(spec, dict) else None


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
