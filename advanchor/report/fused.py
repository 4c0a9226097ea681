"""The report of a fused model: one page beside fused.json."""

import json
from pathlib import Path
from typing import Any

from advanchor.report.html import environment

PAGE = "report.html"


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


def write_fused_report(folder: Path) -> Path:
    """Write report.html from fused.json; returns its path."""
    content = json.loads((folder / "fused.json").read_text())
    rows = sorted(
        (content["verdict"] or {"concepts": []})["concepts"], key=lambda row: (row["ua"] is None, row["ua"] or 0)
    )
    template = environment().get_template("fused.html.j2")
    page = template.render(content=content, rows=rows, summary=summary(content), folder=folder.resolve().name)
    (folder / PAGE).write_bytes(page.encode(errors="replace"))
    return folder / PAGE
