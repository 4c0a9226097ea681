"""Waiting for events: until they happen, for as long as a busy machine may need."""

import time
from collections.abc import Callable

PATIENCE_S = 1200.0  # for anything that takes seconds on an idle machine; only a test that fails waits so long


def wait_until(condition: Callable[[], object], what: str, pause_s: float = 0.1) -> None:
    """Return as soon as the condition holds; `what` says in the failure what did not happen."""
    patience = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < patience, f"in vain: {what}"
        time.sleep(pause_s)
