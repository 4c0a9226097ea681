"""The report of a fused model: one page beside fused.json."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from advanchor.evaluation.grids import decoded, overview, to_png
from advanchor.report.html import MAX_EMBEDDED
from advanchor.report.pictures import png_size
from advanchor.report.text import environment

PAGE, OVERVIEW = "report.html", "overview.png"
MOST = 6  # concepts in the overview


def summary(content: dict[str, Any]) -> dict[str, Any]:
    """What the head of the page says: how many concepts passed, and the means over those that were examined."""
    verdict = content["verdict"]
    rows = verdict["concepts"] if verdict else []
    examined = [row for row in rows if row["ua"] is not None]
    return {
        "concepts": len(content["concepts"]),
        "examined": len(examined),
        "passed": sum(row["passed"] for row in examined),
        "ua": sum(row["ua"] for row in examined) / len(examined) if examined else None,
        "retained": [row for row in (verdict["retained"] if verdict else []) if row["value"] is None],
        "fell": [row for row in (verdict["retained"] if verdict else []) if row["value"] is not None],
    }


def sheet(folder: Path, path: str | None, embed: bool) -> dict[str, Any] | None:
    """A concept's pictures as attributes of <img>; None where there are none."""
    data = (folder / path).read_bytes() if path else b""
    if not path or not (size := png_size(data)):
        return None
    return {"src": f"data:image/png;base64,{b64encode(data).decode()}" if embed else quote(path), "size": size}


def write_fused_overview(folder: Path, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, str]) -> None:
    """One picture of the fusion, for a README or a slide: some concepts of every kind, a row each."""
    pages = []
    for row in spread([row for row in rows if row["name"] in pictures], MOST):
        if page := decoded((folder / pictures[row["name"]]).read_bytes()):
            pages.append((row["name"][:24], page))
    if pages:
        (folder / OVERVIEW).write_bytes(to_png(overview(pages, ("before", "after", "all fused"), wide=4)))


def spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The first rows of every kind in turn, so many in all, kinds together."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    by_kind = [[row for row in rows if row["kind"] == kind] for kind in kinds]
    turns = [row for turn in zip_longest(*by_kind) for row in turn if row is not None][:count]
    return sorted(turns, key=lambda row: kinds.index(row["kind"]))


def write_fused_report(folder: Path) -> Path:
    """Write report.html, and overview.png beside it, from fused.json and its pictures; returns the report's path."""
    content = json.loads((folder / "fused.json").read_text())
    rows = sorted(
        (content["verdict"] or {"concepts": []})["concepts"], key=lambda row: (row["ua"] is None, row["ua"] or 0)
    )
    pictures = content["facts"].get("pictures", {})
    embed = sum((folder / path).stat().st_size for path in pictures.values()) <= MAX_EMBEDDED
    rows = [row | {"sheet": sheet(folder, pictures.get(row["name"]), embed)} for row in rows]
    template = environment().get_template("fused.html.j2")
    page = template.render(content=content, rows=rows, summary=summary(content), folder=folder.resolve().name)
    write_fused_overview(folder, (content["verdict"] or {"concepts": []})["concepts"], pictures)
    (folder / PAGE).write_bytes(page.encode(errors="replace"))
    return folder / PAGE
