"""Files that people write, read once, with bounds: a hostile batch can name any file, also one that never ends."""

import stat
from pathlib import Path

from advanchor.messages import quoted, shown

MAX_BATCH = 4_000_000  # bytes
MAX_TABLE = 32_000_000


class SourceError(ValueError):
    """A file that cannot be read, is no text, or is too large."""


def read_bytes(path: Path, limit: int, *, regular: bool = False) -> bytes:
    """A file of at most `limit` bytes; `regular`: neither a pipe nor a device. Raises SourceError."""
    try:
        if regular and path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"{shown(path)}: cannot be read: it is not a file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{shown(path)}: cannot be read: {reason}") from error
    if len(data) > limit:
        raise SourceError(f"{shown(path)}: cannot be read: it has more than {limit / 1e6:.0f} MB")
    return data


def read_text(path: Path, limit: int, *, regular: bool = False) -> str:
    """As read_bytes, of a file in UTF-8. Raises SourceError."""
    data = read_bytes(path, limit, regular=regular)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = quoted(data[error.start : error.start + 1])
        raise SourceError(f"{shown(path)}:{line}: cannot be read: {byte} is not UTF-8; save it as UTF-8") from error
