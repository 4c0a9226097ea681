"""How numbers, moments and settings are written on a page; the templates, in which everything from a file is text."""

import hashlib
from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
MINUS, NOTHING = "\N{MINUS SIGN}", "\N{EN DASH}"


@cache
def environment() -> Environment:
    """The templates, compiled once."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "points": points, "size": size, "moment": moment, "plain": plain, "duration": duration,
    }  # fmt: skip
    environment.globals |= {"own": own, "policy": policy}
    return environment


@cache
def own(name: str) -> Markup:
    """A style sheet or script of ours: the only text on a page that is not escaped."""
    return Markup((HERE / name).read_text())


def policy(styles: str, *scripts: str, connect: str = "'none'") -> str:
    """A content security policy: nothing runs but our own scripts, nothing is loaded from anywhere else."""
    allowed = " ".join(map(digest, scripts)) or "'none'"
    return (
        f"default-src 'none'; style-src {digest(styles)}; script-src {allowed}; img-src 'self' data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def digest(name: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(own(name).encode()).digest()).decode()}'"


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}"


def points(value: float | None, base: float | None) -> str:
    """The difference in percentage points, with its sign, which 0.0 has not."""
    if value is None or base is None:
        return NOTHING
    text = f"{100 * (value - base):+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def size(number: int) -> str:
    """20 kB, 1.4 MB: powers of 1000, as file managers show them."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def moment(seconds: float) -> str:
    """Seconds since 1970 -> 2026-01-31 10:00 UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """8.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def plain(value: object) -> str:
    """A setting as its YAML would show it."""
    match value:
        case None:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case dict():
            return ", ".join(f"{key}: {plain(part)}" for key, part in value.items())
        case list():
            return ", ".join(map(plain, value))
    return str(value)
