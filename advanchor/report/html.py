"""The report of a run: one HTML file that needs nothing but a browser, however it is mailed, archived or printed.

Whatever the run directory says may have been written by anybody: names, reasons and file names are only ever text.
"""

import io
import struct
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from advanchor import yaml_lines
from advanchor.artifacts import sha256
from advanchor.batch_file import set_override
from advanchor.plan import slug
from advanchor.report.grids import overview, to_png
from advanchor.report.table import rows, summary
from advanchor.spec import BatchError

REPORT = "report/index.html"
OVERVIEW = "report/overview.png"
MAX_OVERVIEW = 12  # concepts in it
OVERRIDE = "# --set "
MAX_EMBEDDED = 60  # concepts; the grids of more are linked, or the page would weigh tens of megabytes
MINUS, NOTHING = "\N{MINUS SIGN}", "\N{EN DASH}"
PREVIEWS = {
    "erased": "Prompts with the concept",
    "retained": "Prompts without it",
}


class RunDirectory(Protocol):
    """What a report needs of `advanchor.runtime.store.Store`."""

    def path(self, *parts: str) -> str: ...
    def read(self, name: str) -> bytes | None: ...
    def read_json(self, name: str) -> Any: ...
    def results(self) -> list[dict[str, Any]]: ...
    def write(self, name: str, data: bytes) -> None: ...


def write_report(store: RunDirectory) -> str:
    """Write report/index.html, and overview.png beside it, from what the run directory holds now; returns its path."""
    results, status = store.results(), store.read_json("status.json")
    batch = (store.read("batch.yaml") or b"").decode(errors="replace")
    table = rows(results, status)
    by_task = {result["task"]: result for result in results}
    finished = [(row, by_task[row["task"]]) for row in table if row["task"] in by_task]
    embed = len(finished) <= MAX_EMBEDDED
    page = environment().get_template("report.html.j2").render(
        heading=heading(batch, status or {}, results),
        status=status or {},
        rows=table,
        summary=summary(table),
        cards=[card(store, row, result, embed=embed) for row, result in finished],
        batch=batch,
    )  # fmt: skip
    store.write(REPORT, page.encode(errors="replace"))
    write_overview(store, [result for _, result in finished])
    return store.path(REPORT)


def heading(batch: str, status: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Model, methods and seed: what the results say, or what the run set out to do where there are none yet."""
    return {
        "models": unique(result["base"] for result in results) or [status.get("model", "an unknown model")],
        "methods": unique(result["method"]["name"] for result in results) or [status.get("method", "not known yet")],
        "seed": batch_seed(batch),
    }


def batch_seed(batch: str) -> Any:
    """The seed of batch.yaml, which opens with a comment per override; None if there is no telling."""
    try:
        asked = yaml_lines.parse(batch).data
        if not isinstance(asked, dict):
            return None
        for line in takewhile(lambda line: line.startswith(OVERRIDE), batch.splitlines()):
            set_override(asked, line.removeprefix(OVERRIDE))
    except (yaml_lines.YamlError, BatchError):
        return None
    return asked.get("seed", 0)


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def card(store: RunDirectory, row: Mapping[str, Any], result: Mapping[str, Any], *, embed: bool) -> dict[str, Any]:
    """All that the page says about one finished concept."""
    folder = f"{slug(result['concept']['name'])}-{result['task']}"
    listed = result.get("files") or {}
    files = [
        entry | {"title": stem + PurePosixPath(entry["name"]).suffix, "href": link(folder, entry["name"])}
        for stem, entry in listed.items()
    ]
    grids = {
        stem: picture(store, folder, entry, embed=embed)
        for stem, entry in listed.items()
        if entry["name"].endswith(".png")
    }
    titled = [(PREVIEWS.get(stem, stem), grids[stem]) for stem in sorted(grids)]
    settings = sorted(result["method"].items(), key=lambda item: item[0] != "name")  # the method's name comes first
    return {"row": row, "result": result, "files": files, "grids": titled, "settings": settings}


def link(folder: str, name: str) -> str:
    """A task's file, seen from the report; a name with slashes stays a name and leads nowhere else."""
    return f"../tasks/{quote(folder, safe='')}/{quote(name, safe='')}"


def picture(store: RunDirectory, folder: str, entry: Mapping[str, Any], *, embed: bool) -> dict[str, Any] | None:
    """A grid as attributes of <img>; None if it is not the file that the result names."""
    if not embed:
        return {"src": link(folder, entry["name"]), "size": None}
    data = checked(store, folder, entry)
    if data is None:
        return None
    width, height = struct.unpack(">II", data[16:24])  # of the header chunk, which comes first in every PNG
    return {"src": f"data:image/png;base64,{b64encode(data).decode()}", "size": (width, height)}


def checked(store: RunDirectory, folder: str, entry: Mapping[str, Any]) -> bytes | None:
    """A file of a task; None if it is not the one that the result names."""
    data = None if "/" in entry["name"] else store.read(f"tasks/{folder}/{entry['name']}")
    return data if data is not None and sha256(data) == entry["sha256"] else None


def write_overview(store: RunDirectory, results: Sequence[Mapping[str, Any]]) -> None:
    """One picture of the run, for a README or a slide: a row per concept, before and after."""
    pages = []
    for result in results:
        folder = f"{slug(result['concept']['name'])}-{result['task']}"
        entry = (result.get("files") or {}).get("erased")
        if entry and (data := checked(store, folder, entry)):
            pages.append((result["concept"]["name"][:24], Image.open(io.BytesIO(data))))
    if pages:
        store.write(OVERVIEW, to_png(overview(pages[:MAX_OVERVIEW])))


def environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points, "size": size, "moment": moment, "plain": plain}
    return environment


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}"


def points(value: float | None, base: float | None) -> str:
    """The difference in percentage points, with its sign, which 0.0 has not."""
    if value is None or base is None:
        return NOTHING
    text = f"{100 * (value - base):+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def size(number: int) -> str:
    """20 kB, 1.4 MB: powers of 1000, as file managers show them."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def moment(seconds: float) -> str:
    """Seconds since 1970 -> 2026-01-31 10:00 UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def plain(value: object) -> str:
    """A setting as its YAML would show it."""
    match value:
        case None:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case dict():
            return ", ".join(f"{key}: {plain(part)}" for key, part in value.items())
        case list():
            return ", ".join(map(plain, value))
    return str(value)
