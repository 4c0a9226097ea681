"""The user's cache: what can be made again, and is trusted only as far as it can be checked."""

import contextlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

SWITCH = "ADVANCHOR_CACHE"  # environment variable: "off", or another folder
SETTLED_S = 2.0  # a file that has changed so lately may change again within the resolution of its times


def user_cache(part: str) -> Path | None:
    """A folder of the user's cache (XDG_CACHE_HOME, or ~/.cache), which need not exist; None if there is to be none.

    ADVANCHOR_CACHE names another folder in place of it, or is "off".
    """
    choice = os.environ.get(SWITCH, "")
    if choice == "off":
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(choice).expanduser() if choice else home / "advanchor") / part


def identity(path: Path) -> dict[str, Any]:
    """What changes whenever a file's content is written: path, device, inode, size, times in nanoseconds."""
    found = path.stat()
    return {
        "path": str(path),
        "device": found.st_dev,
        "inode": found.st_ino,
        "bytes": found.st_size,
        "modified_ns": found.st_mtime_ns,
        "changed_ns": found.st_ctime_ns,
    }


def recalled(entry: Path, own: dict[str, Any]) -> str:
    """The sha256 that an entry has for a file that is what it was; "" where it has none, or is damaged."""
    try:
        content = json.loads(entry.read_bytes())
        sha256 = content.pop("sha256")
        return sha256 if content == own and re.fullmatch("[0-9a-f]{64}", sha256) else ""
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        return ""


def remember(entry: Path, own: dict[str, Any], sha256: str) -> None:
    """Keep a file's sha256 unless the file is too new to tell; several processes may do so at once."""
    if time.time() - max(own["modified_ns"], own["changed_ns"]) / 1e9 < SETTLED_S:
        return
    part = entry.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(own | {"sha256": sha256}))
        part.replace(entry)
