"""Scores at several scales of a delta, as lines: 0 is the base, 1 the delta as it was made."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

WIDTH, HEIGHT = 320, 120  # of the picture, in its own units
SHOWN = ("ua", "ira", "cra")
SCALES = TypeAdapter(dict[float, dict[str, Any]])
MAX_SCALES = 50


def curve(scores: Mapping[str, Any]) -> dict[str, Any] | None:
    """Points and lines of UA, IRA and CRA by scale; None where no further scale was scored, or none can be read."""
    try:
        told = SCALES.validate_python(scores.get("scales") or {})
    except ValidationError:
        return None
    if not told or len(told) > MAX_SCALES or not all(abs(scale) <= 1000 for scale in told):
        return None
    table = {0.0: scores.get("base") or {}, 1.0: scores} | told
    points = [{"scale": scale, **{name: number(table[scale].get(name)) for name in SHOWN}} for scale in sorted(table)]
    low, high = points[0]["scale"], points[-1]["scale"]

    def place(scale: float, value: float) -> tuple[float, float]:
        return round(WIDTH * (scale - low) / (high - low), 1), round(HEIGHT * (1 - value), 1)

    lines = {
        name: [place(point["scale"], point[name]) for point in points if point[name] is not None] for name in SHOWN
    }
    one = place(1.0, 0.0)[0]
    return {"points": points, "lines": {name: line for name, line in lines.items() if len(line) > 1}, "one": one}


def number(value: Any) -> float | None:
    """A share; None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 else None
