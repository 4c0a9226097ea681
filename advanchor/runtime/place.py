"""Where a run's tasks are done: in this process, or on the gangs of a Ray cluster. Only the latter imports Ray."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from advanchor.batch.plan import Task
from advanchor.batch.spec import BatchSpec
from advanchor.rundir.status import RunStatus, View
from advanchor.rundir.store import Store


@dataclass(frozen=True)
class Place:
    """This process if `local`, else the cluster at `address` (or RAY_ADDRESS, or a local Ray of its own)."""

    local: bool = False
    address: str | None = None
    allow_without_token: bool = False


def refuse(place: Place) -> None:
    """Raises ClusterError for a cluster that `drive` would not join, before there is anything to do."""
    if not place.local:
        from advanchor.runtime.ray_cluster import allowed

        allowed(place.address, allow_without_token=place.allow_without_token)


def drive(
    spec: BatchSpec,
    tasks: Sequence[Task],
    store: Store,
    view: View,
    place: Place,
    only: Collection[str] | None = None,
) -> RunStatus:
    """Do what is left to do, of all tasks or of those with the ids in `only`.

    Raises ClusterError; never StoreError: a run that cannot be written to has stopped.
    """
    spec = spec.model_copy(update={"output": store.url})  # whole, wherever a worker is started
    if place.local:
        from advanchor.runtime.local import run_locally

        return run_locally(spec, tasks, store, view, only)
    from advanchor.runtime.driver import Run
    from advanchor.runtime.prometheus import RunMetrics
    from advanchor.runtime.ray_cluster import connected

    with connected(place.address, allow_without_token=place.allow_without_token):
        return Run(spec, tasks, store, RunMetrics(store.url).around(view), only).run()
