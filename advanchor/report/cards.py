"""What the page says about one concept: pictures, scores, curve, attempts, files, settings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from advanchor.report.curves import curve
from advanchor.report.pictures import link
from advanchor.rundir.records import folder_of

PREVIEWS = {
    "erased": "Prompts with the concept",
    "retained": "Prompts without it",
}
MAX_LOGS = 4  # attempts of a concept, the latest
MAX_LOG = 6000  # characters of an error, its end
Show = Callable[[str, Mapping[str, Any]], dict[str, Any] | None]  # (folder, file) -> attributes of <img>


def cards(
    table: Sequence[Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    attempts: Mapping[str, Sequence[Mapping[str, Any]]],
    show: Show,
) -> list[dict[str, Any]]:
    """A card for every row of which there is more to say than the table does; both mappings are by the task's id."""
    return [
        card(row, results.get(row["task"]), attempts.get(row["task"], ()), show)
        for row in table
        if row["task"] in results or row["task"] in attempts or row["reason"]
    ]


def card(
    row: Mapping[str, Any], result: Mapping[str, Any] | None, attempts: Sequence[Mapping[str, Any]], show: Show
) -> dict[str, Any]:
    told = {"row": row, "result": result, "logs": [log(record) for record in attempts[-MAX_LOGS:]]}
    told["more_logs"] = max(0, len(attempts) - MAX_LOGS)
    if result is None:
        return told | {"files": [], "grids": [], "curve": None}
    folder, listed = folder_of(result), result.get("files") or {}
    files = [
        entry | {"title": stem + PurePosixPath(entry["name"]).suffix, "href": link(folder, entry["name"])}
        for stem, entry in listed.items()
    ]
    pictures = {stem: entry for stem, entry in listed.items() if entry["name"].endswith(".png")}
    grids = [(stem, PREVIEWS.get(stem, stem), show(folder, pictures[stem])) for stem in sorted(pictures)]
    return told | {"files": files, "grids": grids, "curve": curve(result.get("scores") or {})}


def log(record: Mapping[str, Any]) -> dict[str, Any]:
    """One attempt, its error cut to its end."""
    details = record["details"].strip()
    end = f"…{details[-MAX_LOG:]}" if len(details) > MAX_LOG else details
    return {**record, "details": end, "took": record["ended_at"] - record["started_at"]}


def methods(results: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Distinct settings of methods, the most frequent first, and the number of its settings by the task's id."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(repr(sorted(result["method"].items(), key=str)), []).append(result)
    ordered = sorted(groups.values(), key=len, reverse=True)
    told = [
        {
            "settings": sorted(group[0]["method"].items(), key=lambda item: item[0] != "name"),  # its name comes first
            "name": group[0]["method"]["name"],
            "count": len(group),
            "kinds": list(dict.fromkeys(result["concept"]["kind"] for result in group)),
        }
        for group in ordered
    ]
    return told, {result["task"]: number for number, group in enumerate(ordered) for result in group}


def failures(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Failed concepts by the last line of their reason, the most frequent first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in table:
        if row["status"] == "failed":
            groups.setdefault((row["reason"].splitlines() or ["no reason is on record"])[-1], []).append(row)
    return [{"reason": reason, "rows": rows} for reason, rows in sorted(groups.items(), key=lambda item: -len(item[1]))]
