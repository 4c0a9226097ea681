"""The results of a run as a table: one flat row per concept, for the page, the terminal and spreadsheets."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = (
    "name", "kind", "status", "ua", "ira", "cra", "cra_with", "cra_without", "hinted", "unasked",
    "alignment", "diversity", "frechet", "degradation", "clip_score",
    "base_ua", "base_ira", "base_cra", "base_hinted", "base_unasked",
    "base_alignment", "base_diversity", "base_clip_score",
    "e_adv_relative_norm", "erasing_s", "evaluating_s", "attempts", "reason", "task",
)  # fmt: skip
SCORES = (
    "ua", "ira", "cra", "cra_with", "cra_without", "hinted", "unasked",
    "alignment", "diversity", "frechet", "degradation", "clip_score",
)  # fmt: skip
BASE_SCORES = ("ua", "ira", "cra", "hinted", "unasked", "alignment", "diversity", "clip_score")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet run a cell instead of showing it


def rows(results: Iterable[Mapping[str, Any]], status: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """One row per concept, in the order of the batch; None where there is no number.

    A task with a result is done, whatever status.json remembers of it. Results that status.json does not list come
    last, as "earlier": they were made under other settings in the same run directory, and no mean counts them.
    """
    by_task = {result["task"]: result for result in results}
    listed = status["tasks"] if status else []
    table = [row(by_task.pop(entry["id"], None), entry) for entry in listed]
    rest = {"status": "earlier" if status else "done"}
    return table + [row(result, rest) for result in by_task.values()]


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
    """How many concepts are in which state, and the means over those that are done and have the score."""
    done = [entry for entry in table if entry["status"] == "done"]
    means = {key: mean(entry[key] for entry in done) for key in COLUMNS if key in SCORES or key.startswith("base_")}
    return {"counts": dict(Counter(entry["status"] for entry in table)), "means": means}


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
    """Numbers as they are; a text that begins like a formula behind an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
