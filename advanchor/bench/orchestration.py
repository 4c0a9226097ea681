"""`advanchor bench orchestration RUN`: how much of a finished run's time its gangs spent on anything but erasing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advanchor.rundir.store import Store


@dataclass(frozen=True)
class Orchestration:
    """Of a run in one go: from its first attempt's start to its last one's end."""

    concepts: int
    gangs: int
    wall_s: float
    erasing_s: float  # of all concepts together, and evaluating
    share: float  # of the gangs' time that was neither

    def sentence(self) -> str:
        return (
            f"{self.concepts} concepts on {self.gangs} gangs: {self.wall_s:.1f} s, in which the gangs erased and "
            f"evaluated for {self.erasing_s:.1f} s; {self.share:.2%} of their time went elsewhere"
        )


def measure(store: Store) -> Orchestration:
    """ValueError for a run without results."""
    attempts = [record for records in store.attempts().values() for record in records]
    return of(store.results(), attempts)


def of(results: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]]) -> Orchestration:
    if not results or not attempts:
        raise ValueError("nothing is finished in this run")
    gangs = len({attempt["gang"] for attempt in attempts})
    wall = max(attempt["ended_at"] for attempt in attempts) - min(attempt["started_at"] for attempt in attempts)
    work = sum(sum(result["seconds"].values()) for result in results)
    return Orchestration(len(results), gangs, wall, work, 1 - work / (gangs * wall))
