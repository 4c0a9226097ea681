"""Two runs of the same concepts, side by side: what got better, what got worse."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from advanchor.report.table import mean, rows_of
from advanchor.report.text import environment
from advanchor.rundir.store import Store

COMPARED = ("ua", "ira", "cra")  # higher is better
OUTCOMES = ("worse", "mixed", "better", "same", "only in A", "only in B")
LEAST = 0.01  # of a score's change that counts


def compared(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per concept, by its name; the largest loss first, then what has no counterpart, then the largest gain."""
    a, b = (current(rows) for rows in (before, after))
    rows = [pair(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])]
    return sorted(rows, key=lambda row: (OUTCOMES.index(row["outcome"]), row["least"], -row["most"]))


def current(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """By name, without results of earlier batches."""
    return {row["name"]: row for row in rows if row["status"] != "earlier"}


def pair(name: str, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> dict[str, Any]:
    """least, most: the lowest and the highest change of a score, 0 where there is none."""
    known = b or a or {}
    changes = {key: change(a, b, key) for key in COMPARED}
    moved = [value for value in changes.values() if value is not None]
    told = {"name": name, "kind": known["kind"], "a": a, "b": b, "changes": changes}
    told |= {"least": min(moved, default=0.0), "most": max(moved, default=0.0)}
    return told | {"outcome": outcome(a, b, moved)}


def change(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, key: str) -> float | None:
    return None if a is None or b is None or a[key] is None or b[key] is None else b[key] - a[key]


def outcome(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, moved: Sequence[float]) -> str:
    """One of OUTCOMES: by the scores where both have them, else by whether it is done."""
    if a is None or b is None:
        return "only in B" if a is None else "only in A"
    done = (b["status"] == "done") - (a["status"] == "done")
    up = done > 0 or any(value >= LEAST - 1e-9 for value in moved)
    down = done < 0 or any(value <= 1e-9 - LEAST for value in moved)
    return "mixed" if up and down else "better" if up else "worse" if down else "same"


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many concepts are in which outcome, and the means over those that both runs have scored."""
    both = {key: [row for row in rows if row["changes"][key] is not None] for key in COMPARED}
    means = {key: [mean(row[side][key] for row in own) for side in "ab"] for key, own in both.items()}
    counts = Counter(row["outcome"] for row in rows)
    return {"counts": {name: counts[name] for name in OUTCOMES if counts[name]}, "means": means}


def compare(a: Store, b: Store) -> tuple[bytes, dict[str, Any]]:
    """The page and its summary."""
    rows = compared(*(rows_of(store, store.results()) for store in (a, b)))
    told = summary(rows)
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    template = environment().get_template("compare.html.j2")
    page = template.render(rows=rows, summary=told, kinds=kinds, a=a.url, b=b.url, outcomes=OUTCOMES)
    return page.encode(errors="replace"), told
