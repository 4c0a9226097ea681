"""Pictures of a run on its page: measured, compared with their sha256, embedded or linked."""

import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from advanchor.artifacts import sha256
from advanchor.evaluation.grids import decoded, overview, to_png
from advanchor.rundir.records import folder_of
from advanchor.rundir.store import Store

OVERVIEW = "report/overview.png"
MAX_OVERVIEW = 12  # concepts in it
MAX_PIXELS = 50_000_000  # of a picture; more would be a bomb for whoever opens the page


def link(folder: str, name: str) -> str:
    """A task's file, seen from the report; a name with slashes stays a name and leads nowhere else."""
    return f"../tasks/{quote(folder, safe='')}/{quote(name, safe='')}"


def picture(store: Store, folder: str, entry: Mapping[str, Any], *, embed: bool) -> dict[str, Any] | None:
    """A grid as attributes of <img>; None if it is not the file that the result names."""
    if not embed:
        return {"src": link(folder, entry["name"]), "size": None}
    data = checked(store, folder, entry)
    if data is None:
        return None
    return {"src": f"data:image/png;base64,{b64encode(data).decode()}", "size": png_size(data)}


def checked(store: Store, folder: str, entry: Mapping[str, Any]) -> bytes | None:
    """A picture of a task; None if it is not the one that the result names, or none that may be shown."""
    data = store.read(f"tasks/{folder}/{entry['name']}")
    return data if data is not None and sha256(data) == entry["sha256"] and png_size(data) else None


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height, from the header; None for what is no PNG, or too large to be decoded by anybody."""
    if len(data) < 33 or not data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (width, height) if 0 < width * height <= MAX_PIXELS else None


def write_overview(store: Store, results: Sequence[Mapping[str, Any]]) -> None:
    """One picture of the run, for a README or a slide: a row per concept, before and after."""
    pages = []
    for result in results:
        folder = folder_of(result)
        entry = (result.get("files") or {}).get("erased")
        if len(pages) < MAX_OVERVIEW and entry and (data := checked(store, folder, entry)) and (own := decoded(data)):
            pages.append((result["concept"]["name"][:24], own))
    if pages:
        store.write(OVERVIEW, to_png(overview(pages)))
