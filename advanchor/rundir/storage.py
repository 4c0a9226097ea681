"""Files under one folder or URL, through fsspec: never half written, and asked for again where storage fails."""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from advanchor.messages import choice, quoted

T = TypeVar("T")
PATIENCE_S = 120.0  # for storage that fails, unless a run says otherwise
READERS = 32  # files read at a time
MAX_DEPTH, MAX_DIGITS = 40, 20  # of JSON: levels in one another, digits of a whole number
PIECE = 2**20  # bytes of a large file read at a time
LASTING = {  # waiting does not help
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
}  # fmt: skip
HERE = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)  # nor does it here
SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")  # of run directories that are URLs
CLIENTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "azure")  # whose own errors are of the network or the service


class StoreError(RuntimeError):
    """A run directory that cannot be used, or a file in it that is not what its result says."""


class DamagedError(StoreError):
    """A file whose content is not what this program writes there."""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may work a little later."""
    if isinstance(error, HERE):
        return False
    if isinstance(error, OSError):
        return error.errno not in LASTING
    return type(error).__module__.partition(".")[0] in CLIENTS


class Files:
    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        """`url`: a folder, or a URL of a scheme in SCHEMES; relative folders are made absolute. Raises StoreError."""
        self.patience_s = patience_s
        try:
            check_scheme(url)
            self.url = url if "://" in url else str(Path(url).expanduser().resolve())
            self.fs, self.root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            self.is_local = isinstance(self.fs, LocalFileSystem)
            if self.is_local and Path(self.root).exists() and not Path(self.root).is_dir():
                raise StoreError("it is a file, not a folder")
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error  # OSErrors repeat the path
            raise StoreError(f"run directory {quoted(url)} cannot be opened: {reason}") from error

    def path(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))

    def inside(self, name: str) -> str:
        """The path of a file, which lies in this folder. Raises StoreError if its name or a link leads elsewhere."""
        path = self.path(name)
        if ".." in name.split("/") or (self.is_local and not leads_inside(Path(path), Path(self.root))):
            raise StoreError(f"{path} leads outside of the run directory, and is neither read nor written")
        return path

    def patiently(self, name: str, action: Callable[[], T]) -> T:
        """Do it, for `patience_s` again and again where storage fails. Raises StoreError, FileNotFoundError."""
        again = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            stop=stop_after_delay(self.patience_s),
            reraise=True,
        )
        try:
            return again(action)
        except FileNotFoundError:
            raise
        except Exception as error:
            if isinstance(error, StoreError):
                raise
            if isinstance(error, OSError) or is_transient(error):
                raise StoreError(f"storage: {self.path(name)}: {error}") from error
            raise

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that nobody ever reads half of it, and so that it survives a power cut."""
        if self.is_local:
            self.patiently(name, lambda: write_atomically(Path(self.inside(name)), data))
        else:  # object stores replace an object as a whole
            self.patiently(name, lambda: self.fs.pipe_file(self.inside(name), data))

    def read(self, name: str) -> bytes | None:
        """None if there is no such file."""
        try:
            return self.patiently(name, lambda: self.fs.cat_file(self.inside(name)))
        except FileNotFoundError:
            return None

    def read_into(self, name: str, buffer: bytearray) -> tuple[memoryview, str] | None:
        """A file's bytes and their sha256; None if there is no such file.

        The bytes are in `buffer` if it holds as many, else in memory of their own: fresh memory for every large file
        would take longer than reading it does.
        """
        if not self.is_local:
            data = self.read(name)
            return None if data is None else (memoryview(data), hashlib.sha256(data).hexdigest())
        try:
            return self.patiently(name, lambda: read_hashed(Path(self.inside(name)), buffer))
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.patiently(name, lambda: self.fs.rm_file(self.inside(name)))

    def write_json(self, name: str, content: object) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        self.write(name, text.encode(errors="backslashreplace"))  # of a lone surrogate: as JSON escapes it

    def read_json(self, name: str) -> Any:
        """None if there is no such file. Raises DamagedError, which names it."""
        data = self.read(name)
        try:
            return None if data is None else parse(data)
        except ValueError as error:
            raise DamagedError(f"{self.path(name)} is damaged: {error}") from error

    def readable(self, name: str) -> Any:
        """As read_json; a DamagedError is returned, not raised."""
        try:
            return self.read_json(name)
        except DamagedError as error:
            return error

    def find(self, *pattern: str) -> list[str]:
        """Names that match a pattern of parts, in which "*" stands for one part or a piece of one; sorted.

        One listing of all that lies below the parts before the first "*": object stores answer that a thousand names
        at a time, where a search folder by folder would be several requests for every task.
        """
        literal = list(itertools.takewhile(lambda part: "*" not in part, pattern))
        top, start = self.path(*literal), self.path("")
        found = self.patiently("/".join(pattern), lambda: self.fs.find(top))
        names = (str(path)[len(start) :] for path in found)
        return sorted(name for name in names if matches(name.split("/"), pattern))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file below a folder, by name."""
        top, start = self.path(folder), self.path("")
        found = self.patiently(folder, lambda: self.fs.find(top, detail=True))
        return {str(path)[len(start) :]: int(entry.get("size") or 0) for path, entry in found.items()}

    def read_many(self, names: Sequence[str]) -> dict[str, Any]:
        """JSON files by name, read side by side; those that have vanished are left out. A DamagedError is a value."""
        with ThreadPoolExecutor(READERS) as readers:
            found = dict(zip(names, readers.map(self.readable, names), strict=True))
        return {name: content for name, content in found.items() if content is not None}


def check_scheme(url: str) -> None:
    """Raises ValueError for a URL that no run directory can have."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme not in SCHEMES:
        raise ValueError(choice(scheme, SCHEMES))


def leads_inside(path: Path, root: Path) -> bool:
    """Whether a path, whatever links are on the way, is in a folder; a file that is none, such as a pipe, is not."""
    try:
        if not path.resolve().is_relative_to(root):
            return False
    except (OSError, RuntimeError):  # links that lead in a circle
        return False
    return path.is_file() or path.is_dir() or not path.exists()


def parse(data: bytes) -> Any:
    """JSON from anybody: numbers that are not finite become None. Raises ValueError, in a few words."""
    try:
        content = json.loads(data, parse_float=number, parse_int=whole, parse_constant=lambda name: None)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("it is empty" if not data.strip() else f"it is no JSON ({str(error)[:80]})") from error
    if depth(content) > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    return content


def number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def whole(text: str) -> int | None:
    return int(text) if len(text) <= MAX_DIGITS else None


def depth(content: Any) -> int:
    """How many lists and objects lie in one another, level by level; it stops counting beyond MAX_DEPTH."""
    level, count = [content], 0
    while level and count <= MAX_DEPTH:
        level = [part for part in level if isinstance(part, dict | list)]
        level = [below for part in level for below in (part.values() if isinstance(part, dict) else part)]
        count += bool(level)
    return count


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))


def read_hashed(path: Path, buffer: bytearray) -> tuple[memoryview, str]:
    """A file's bytes, in `buffer` if they fit, and their sha256, taken of each piece while it is in the cache."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # others come while a piece is hashed; macOS has no such call
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        size = os.fstat(file.fileno()).st_size
        content, done = memoryview(buffer if len(buffer) >= size else bytearray(size))[:size], 0
        while done < size and (read := file.readinto(content[done : done + PIECE])):
            digest.update(content[done : done + read])
            done += read
    return content[:done], digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder; readable as far as the umask allows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
