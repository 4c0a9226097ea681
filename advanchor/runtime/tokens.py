"""Ray's token and the environment that Ray reads: who may use a cluster that this program starts or joins."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from advanchor.runtime.errors import ClusterError

TOKEN_FILE = Path("~/.ray/auth_token")  # where Ray looks if neither RAY_AUTH_TOKEN nor RAY_AUTH_TOKEN_PATH is set
FOR_OTHERS = 0o077
NICENESS = "RAY_worker_niceness"


@contextlib.contextmanager
def environment(**changes: str | None) -> Iterator[None]:
    """Environment variables for the time of this block, also for Ray, which reads some of them once; None removes."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        put(changes)
        yield
    finally:
        put(before)


def put(changes: dict[str, str | None]) -> None:
    for name, value in changes.items():
        os.environ.pop(name, None)
        os.environ.update({name: value} if value is not None else {})
    read_again()


def read_again() -> None:
    """Ray has read the environment when it was imported."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """What starts a cluster in this block starts one that asks for the token and listens on loopback only.

    Its workers are as nice as this process, unless RAY_worker_niceness says otherwise.

    Ray binds to loopback where the node's address is 127.0.0.1, and replaces that address by the machine's outer one
    unless it believes that no other node can ever join, as on macOS.
    """
    joinable = ray_constants.ENABLE_RAY_CLUSTER
    ours = {NICENESS: os.environ.get(NICENESS, "0")}  # with Ray's 15, ranks starve beside other work
    ours |= {
        "RAY_AUTH_MODE": "token",
        "RAY_grpc_enable_http_proxy": "0",
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
    }
    with environment(**ours):
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            keep_token_private()
            if not has_token():
                make_token()
            if not has_token():
                raise ClusterError(f"Ray does not find the token in {TOKEN_FILE}: is RAY_AUTH_TOKEN set to nothing?")
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = joinable


def has_token() -> bool:
    """Whether Ray finds a token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or its own file. Raises ClusterError."""
    try:
        return AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError as error:
        raise ClusterError(str(error).partition(". ")[0]) from error


def keep_token_private() -> None:
    """Take others' access to Ray's own token file away, if it is there and they have any. Raises ClusterError."""
    file = TOKEN_FILE.expanduser()
    try:
        if file.stat().st_mode & FOR_OTHERS:
            file.chmod(0o600)
    except FileNotFoundError:
        return
    except OSError as error:
        if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
            return  # Ray takes its token from there
        raise ClusterError(
            f"others can read Ray's token in {file}, and that cannot be changed ({error.strerror}): chmod 600 {file}"
        ) from error


def make_token() -> None:
    """Write a token where Ray looks for one, before Ray does so with the umask's mode; whole, or not at all.

    The file is 0600 from its first moment. Of two programs that start at once both use the one that came first.
    """
    file = TOKEN_FILE.expanduser()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.exists() and not file.read_text().strip():  # Ray takes an empty file for none
            file.unlink()
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".auth_token-")  # O_EXCL, 0600
        with os.fdopen(handle, "w") as text:
            text.write(secrets.token_hex(32))
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, file)
        finally:
            Path(draft).unlink()
    except OSError as error:
        raise ClusterError(
            f"Ray's token cannot be written to {file} ({error.strerror}): set RAY_AUTH_TOKEN to a random text"
        ) from error
    AuthenticationTokenLoader.instance().reset_cache()
