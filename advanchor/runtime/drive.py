"""Where a run's tasks are done: in this process, or on the gangs of a Ray cluster. Only the latter imports Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

from advanchor.plan import Task
from advanchor.runtime.status import RunStatus, View
from advanchor.runtime.store import Store
from advanchor.spec import BatchSpec


class ClusterError(RuntimeError):
    """A cluster that cannot be joined, or that can never hold one gang."""


@dataclass(frozen=True)
class Place:
    """This process if `local`, else the cluster at `address` (or RAY_ADDRESS, or a local Ray of its own)."""

    local: bool = False
    address: str | None = None
    allow_without_token: bool = False


def drive(spec: BatchSpec, tasks: Sequence[Task], store: Store, view: View, place: Place) -> RunStatus:
    """Do what is left to do. Raises ClusterError; never StoreError: a run that cannot be written to has stopped."""
    if place.local:
        from advanchor.runtime.local import run_locally

        return run_locally(spec, tasks, store, view)
    from advanchor.runtime.batch import Run
    from advanchor.runtime.ray_cluster import connected

    with connected(place.address, allow_without_token=place.allow_without_token):
        return Run(spec, tasks, store, view).run()
