"""advanchor status: where a run is, from any machine, with or without its driver."""

import json
import time
from typing import TYPE_CHECKING

from advanchor.cli import common, live
from advanchor.cli.console import console, safe, say, warn

if TYPE_CHECKING:
    from advanchor.rundir.status import RunStatus


def status(run: common.RunDirectory, as_json: common.AsJson = False) -> None:
    """Show the state of a run. The exit code is the run's: 0 all done, 1 not (yet), 130 interrupted."""
    from advanchor.rundir.status import STATUS_FILE, read_status
    from advanchor.rundir.store import Store

    with common.user_errors():
        store = Store(run)
        snapshot = read_status(store)
        if snapshot is None and store.read(STATUS_FILE) is None:
            common.fail(f"{run} has no {STATUS_FILE}: it is not a run directory, or nothing has started yet")
        snapshot = snapshot or reckoned(run)
    if as_json:
        print(json.dumps(snapshot.to_json(), indent=2))
    else:
        console().print(live.table(snapshot))
        say(safe(f"{snapshot.state}: {live.summary(snapshot)}"))
        age = time.time() - snapshot.updated_at
        if snapshot.is_stale:
            say(f"last heard of {age:.0f} s ago: its driver is gone; run the batch again to go on", "yellow")
    raise SystemExit(snapshot.exit_code)


def reckoned(run: str) -> "RunStatus":
    """The state of a run whose snapshot cannot be read: what its plan, results and attempts say."""
    common.quiet()
    from advanchor.runtime.ledger import Ledger

    spec, tasks, store = common.opened(run)
    ledger = Ledger(spec, tasks, store)
    ledger.open(mend=False)
    warn(store.damaged)
    ledger.status.state = "stopped" if ledger.unfinished else "finished"
    ledger.status.note = "status.json is damaged; this is what the other files say"
    return ledger.status
