"""A JSON POST at the first failure and at the end of a run."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from advanchor._version import __version__
from advanchor.runtime.addresses import is_loopback

TIMEOUT_S, TRIES = 5.0, 3


class NotifyError(ValueError):
    """A URL that is not posted to. Its message shows no more of the URL than scheme and host."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is posted goes to the URL that was given, or nowhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def shown(url: str) -> str:
    """Scheme and host: the rest of a webhook's URL is its secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}/..."


def check(url: str) -> None:
    """Raises NotifyError for what is neither https nor http on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise NotifyError("--notify: is not a URL") from error
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise NotifyError("--notify: a URL with https:// is needed")
    if parts.username is not None or parts.password is not None:
        raise NotifyError(f"--notify {shown(url)}: a name and password in a URL are not sent; use a secret path")
    if parts.scheme == "http" and not is_loopback(host):
        raise NotifyError(f"--notify {shown(url)}: http would send it in the clear; use https, or http on loopback")


def is_transient(error: BaseException) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code == 429
    return isinstance(error, OSError)


class Notifier:
    def __init__(self, url: str) -> None:
        check(url)
        self.url, self.name = url, f"--notify {shown(url)}"
        proxies = [urllib.request.ProxyHandler({})] if urlsplit(url).scheme == "http" else []
        self.opener = urllib.request.build_opener(NoRedirect, *proxies)
        self.run, self.has_failed = "", False

    def start(self, run: str, batch: Mapping[str, Any]) -> None:  # noqa: ARG002 (of every tracker)
        self.run = run

    def loss(self, concept: str, step: int, loss: float) -> None:
        pass

    def done(self, concept: str, scores: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
        pass

    def failed(self, concept: str, reason: str) -> None:
        if not self.has_failed:
            self.has_failed = True
            self.post({"event": "first_failure", "concept": concept, "reason": reason})

    def end(self, state: str, counts: Mapping[str, int]) -> None:
        self.post({"event": "end", "state": state, "counts": dict(counts)})

    def post(self, content: Mapping[str, Any]) -> None:
        """Raises OSError whose text does not show the URL."""
        text = f"{content['event']}: {self.run}"  # what chat programs show
        whole = {"program": f"advanchor {__version__}", "run": self.run, "at": time.time(), "text": text, **content}
        request = urllib.request.Request(
            self.url, json.dumps(whole).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        again = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_exponential(multiplier=0.5, max=5),
            stop=stop_after_attempt(TRIES),
            reraise=True,
        )
        try:
            again(lambda: self.opener.open(request, timeout=TIMEOUT_S).close())
        except urllib.error.HTTPError as error:
            raise OSError(f"it answered {error.code}") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise OSError(str(getattr(reason, "strerror", None) or reason).replace(self.url, shown(self.url))) from None
