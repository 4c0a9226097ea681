"""Which process runs which tests, and when: what takes long to make is made once, and ended when nobody needs it."""

from contextlib import ExitStack
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

FIRST_ROOMS = ("runtime", "studies", "deployment", "bench")  # of long files, which several processes take first
CLUSTER_FILES = frozenset(
    f"test_{name}.py"
    for name in (
        "bases_on_ray",
        "commands",
        "drivers",
        "generate_on_gangs",
        "nodes",
        "ranks_die",
        "repair",
        "storage",
    )
)
CLUSTER = pytest.StashKey[ExitStack]()  # what ends the cluster


def uses_cluster(item: Any) -> bool:
    return "whole_cluster" in getattr(item, "fixturenames", ())


def arrange(items: list[pytest.Item]) -> None:
    """What uses the cluster comes first, and long files before short ones."""
    strangers = {item.path.name for item in items if uses_cluster(item)} - CLUSTER_FILES
    assert not strangers, f"these use the cluster and are not in CLUSTER_FILES: {', '.join(sorted(strangers))}"
    items.sort(key=lambda item: (not uses_cluster(item), item.path.parent.name not in FIRST_ROOMS))


class ByFile(LoadScopeScheduling):
    """A file's tests run in one process, one after another; so do all files that use the cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "cluster" if file.rpartition("/")[2] in CLUSTER_FILES else file


def end_cluster_before(item: pytest.Item) -> None:
    """Of all that comes after the tests that use it, none does."""
    if CLUSTER in item.config.stash and not uses_cluster(item):
        item.config.stash[CLUSTER].close()
