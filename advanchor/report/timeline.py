"""What every gang did when: attempts as bars, a lane for each gang."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAUSE_S = 600.0  # in which nothing ran: what comes after is another stretch of the run
MAX_STRETCHES = 8  # the latest are shown
MAX_BARS = 4000  # of one stretch
MAX_NAMED = 6  # concepts in the title of a bar
WIDTH, LANE, GAP = 1000, 18, 6  # of the picture, in its own units
EVENTS = ("Succeeded", "Interrupted", "Cancelled", "Refused", "Broke")  # a pack's bar shows the last of them


@dataclass(frozen=True)
class Bar:
    """One attempt of a task, or of the pack that it was in."""

    lane: str
    start: float  # seconds since 1970
    end: float
    event: str
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        shown = ", ".join(self.names[:MAX_NAMED])
        more = f" and {len(self.names) - MAX_NAMED} more" if len(self.names) > MAX_NAMED else ""
        return f"{shown}{more}: {self.event.lower()}, {self.end - self.start:.1f} s"


@dataclass(frozen=True)
class Stretch:
    """A time in which the run was at work, with its bars in pixels."""

    start: float
    end: float
    lanes: list[str]
    bars: list[dict[str, Any]]  # x, y, width, event, label
    busy: float  # share of the lanes' time in which an attempt ran
    left_out: int

    @property
    def height(self) -> int:
        return len(self.lanes) * (LANE + GAP)


def bars(attempts: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Bar]:
    """From (concept's name, record), in order; attempts of one gang that started together were one pack."""
    packs: dict[tuple[str, float], list[tuple[str, Mapping[str, Any]]]] = {}
    for name, record in attempts:
        lane = f"gang {record['gang']}" + (f" · {record['node']}" if record["node"] else "")
        packs.setdefault((lane, record["started_at"]), []).append((name, record))
    made = []
    for (lane, start), pack in packs.items():
        end = max(start, *(record["ended_at"] for _, record in pack))
        event = max((record["event"] for _, record in pack), key=EVENTS.index)
        made.append(Bar(lane, start, end, event, tuple(name for name, _ in pack)))
    return sorted(made, key=lambda bar: (bar.start, bar.lane))


def stretches(found: Sequence[Bar]) -> list[Stretch]:
    """The latest stretches of work, in order."""
    groups: list[list[Bar]] = []
    end = 0.0
    for bar in found:
        if not groups or bar.start - end > PAUSE_S:
            groups.append([])
        groups[-1].append(bar)
        end = max(end, bar.end)
    return [stretch(group) for group in groups[-MAX_STRETCHES:]]


def stretch(group: Sequence[Bar]) -> Stretch:
    start, end = group[0].start, max(bar.end for bar in group)
    lanes = sorted({bar.lane for bar in group}, key=lambda lane: (len(lane.split(" · ")[0]), lane))
    span = max(end - start, 1e-3)
    drawn = [
        {
            "x": round(WIDTH * (bar.start - start) / span, 2),
            "y": lanes.index(bar.lane) * (LANE + GAP),
            "width": round(max(WIDTH * (bar.end - bar.start) / span, 1.0), 2),
            "event": bar.event.lower(),
            "label": bar.label,
        }
        for bar in group[-MAX_BARS:]
    ]
    worked = sum(union([bar for bar in group if bar.lane == lane]) for lane in lanes)
    return Stretch(start, end, lanes, drawn, worked / (span * len(lanes)), max(0, len(group) - MAX_BARS))


def union(own: Sequence[Bar]) -> float:
    """Seconds that bars, ordered by their start, cover; where two overlap they count once."""
    reached = itertools.accumulate((bar.end for bar in own), max, initial=0.0)
    return sum(max(0.0, bar.end - max(bar.start, before)) for bar, before in zip(own, reached, strict=False))
