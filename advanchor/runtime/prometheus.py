"""A run's numbers for Prometheus, through Ray: a node serves them at its metrics port as `ray_advanchor_...`."""

from ray.util.metrics import Counter, Gauge, Histogram

from advanchor.rundir.status import RunStatus, View

STATES = ("queued", "running", "done", "failed", "cancelled", "waiting")
SECONDS = [float(n) for n in (1, 3, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)]  # bounds of the buckets


class RunMetrics:
    """Tasks by state, seconds of finished tasks, attempts.

    They carry the last part of the run directory only: whoever reaches the port reads them without a token.
    """

    def __init__(self, run: str) -> None:
        self.tags = {"run": run.rstrip("/").rpartition("/")[2]}
        self.tasks = Gauge("advanchor_tasks", "Tasks of a run by state", tag_keys=("run", "state"))
        self.seconds = Histogram("advanchor_task_seconds", "Seconds of finished tasks", SECONDS, tag_keys=("run",))
        self.attempts = Counter("advanchor_attempts", "Attempts that have been started", tag_keys=("run",))
        self.states: dict[str, tuple[str, int]] = {}

    def around(self, view: View) -> View:
        def both(status: RunStatus) -> None:
            view(status)
            self.look(status)

        return both

    def look(self, status: RunStatus) -> None:
        """What earlier drivers have done, which the first snapshot shows, is counted among the tasks only."""
        is_first = not self.states
        for state in STATES:
            self.tasks.set(status.count(state), self.tags | {"state": state})
        for row in status.tasks:
            state, attempts = self.states.get(row.id, ("", row.attempts))
            started_anew = row.status == "running" == state and row.attempts > attempts
            if started_anew or (state == "queued" and row.status in ("running", "done", "failed")):
                self.attempts.inc(1, self.tags)
            if not is_first and row.status == "done" and state != "done":
                self.seconds.observe(row.seconds, self.tags)
            self.states[row.id] = (row.status, row.attempts)
