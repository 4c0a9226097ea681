"""The results of a run as a table: one flat row per concept, for the page, the terminal and spreadsheets."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from advanchor.evaluation.settings import is_weak
from advanchor.rundir.records import SCORES
from advanchor.rundir.status import read_status
from advanchor.rundir.store import Store
from advanchor.rundir.verdicts import Verdict, verdicts

COLUMNS = (
    "name", "kind", "status", "ua", "ira", "cra", "cra_with", "cra_without", "hinted", "unasked",
    "alignment", "diversity", "frechet", "degradation", "clip_score",
    "base_ua", "base_ira", "base_cra", "base_hinted", "base_unasked",
    "base_alignment", "base_diversity", "base_clip_score",
    "e_adv_relative_norm", "erasing_s", "evaluating_s", "attempts", "reason", "verdict", "note", "task",
)  # fmt: skip
BASE_SCORES = ("ua", "ira", "cra", "hinted", "unasked", "alignment", "diversity", "clip_score")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also full-width


def rows_of(store: Store, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a run directory, with what people think of its results."""
    status = read_status(store)
    return rows(results, status.to_json() if status else None, verdicts(store, results))


def rows(
    results: Iterable[Mapping[str, Any]],
    status: Mapping[str, Any] | None,
    judged: Mapping[str, Verdict] | None = None,
) -> list[dict[str, Any]]:
    """One row per concept, in the order of the batch; None where there is no number.

    A task with a result is done, whatever status.json remembers of it. Results that status.json does not list come
    last, as "earlier": they were made under other settings in the same run directory, and no mean counts them.
    """
    by_task = {result["task"]: result for result in results}
    listed = status["tasks"] if status else []
    table = [row(by_task.pop(entry["id"], None), entry) for entry in listed]
    rest = {"status": "earlier" if status else "done"}
    table += [row(result, rest) for result in by_task.values()]
    for entry in table:
        if judged and (given := judged.get(entry["task"])):
            entry |= {"verdict": given.verdict, "note": given.note}
    return table


def row(result: Mapping[str, Any] | None, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A concept's row from its result, its entry in status.json, or both."""
    found: dict[str, Any] = dict.fromkeys(COLUMNS)
    found |= {key: entry.get(key) for key in ("name", "kind", "status", "attempts")}
    found |= {"task": entry.get("id"), "reason": (entry.get("reason") or "").strip()}
    if result is None:
        return found
    scores = result.get("scores") or {}
    base, seconds = scores.get("base") or {}, result.get("seconds") or {}
    found |= {"name": result["concept"]["name"], "kind": result["concept"]["kind"], "task": result["task"]}
    found |= {"status": "earlier" if entry["status"] == "earlier" else "done"}
    found |= {key: scores.get(key) for key in SCORES} | {f"base_{key}": base.get(key) for key in BASE_SCORES}
    found |= {"erasing_s": seconds.get("erasing"), "evaluating_s": seconds.get("evaluating")}
    found["e_adv_relative_norm"] = (result.get("facts") or {}).get("e_adv_relative_norm")
    return found


def summary(table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many concepts are in which state, the means over those that are done and have the score, and how many of them
    are hardly erased."""
    done = [entry for entry in table if entry["status"] == "done"]
    means = {key: mean(entry[key] for entry in done) for key in COLUMNS if key in SCORES or key.startswith("base_")}
    counts = dict(Counter(entry["status"] for entry in table))
    return {"counts": counts, "means": means, "weak": sum(is_weak(entry["ua"]) for entry in done)}


def shortfall(entry: Mapping[str, Any]) -> float | None:
    """The most that one score falls short: UA of 1, IRA and CRA of the base's. None without scores."""
    pairs = [(entry["ua"], 1.0), (entry["ira"], entry["base_ira"]), (entry["cra"], entry["base_cra"])]
    short = [wanted - value for value, wanted in pairs if value is not None and wanted is not None]
    return max(short) if short else None


def worst_first(table: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What failed, then by shortfall, then what has no scores; earlier results last. Equal ones keep their order."""

    def key(entry: Mapping[str, Any]) -> tuple[int, float]:
        short = shortfall(entry)
        state = {"failed": 0, "earlier": 3}.get(entry["status"], 2 if short is None else 1)
        return state, -(short or 0.0)

    return sorted(table, key=key)


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def to_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """The rows under a line of column names, with no cell that a spreadsheet would take for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([harmless(entry[key]) for key in COLUMNS] for entry in table)
    return buffer.getvalue()


def harmless(cell: Any) -> Any:
    """Numbers as they are; a text that begins like a formula, spaces aside, behind an apostrophe.

    Spreadsheets run such a cell instead of showing it, also where its sign is a full-width one.
    """
    runs = isinstance(cell, str) and (cell.startswith(FORMULA_STARTS) or cell.lstrip().startswith(FORMULA_STARTS))
    return f"'{cell}" if runs else cell
