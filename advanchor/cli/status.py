"""advanchor status: where a run is, from any machine, with or without its driver."""

import json
import time

from rich.console import Console

from advanchor.cli import common, live


def status(run: common.RunDirectory, as_json: common.AsJson = False) -> None:
    """Show the state of a run. The exit code is the run's: 0 all done, 1 not (yet), 130 interrupted."""
    from advanchor.runtime.status import STATUS_FILE, RunStatus
    from advanchor.runtime.store import Store

    content = Store(run).read_json(STATUS_FILE)
    if content is None:
        common.fail(f"{run} has no {STATUS_FILE}: it is not a run directory, or nothing has started yet")
    if as_json:
        print(json.dumps(content, indent=2))
    snapshot = RunStatus.from_json(dict(content))
    if not as_json:
        console = Console()
        console.print(live.table(snapshot))
        console.print(f"{snapshot.state}: {live.summary(snapshot)}", highlight=False)
        age = time.time() - snapshot.updated_at
        if snapshot.is_stale:
            console.print(
                f"last heard of {age:.0f} s ago: its driver is gone; run the batch again to go on", style="yellow"
            )
    raise SystemExit(snapshot.exit_code)
