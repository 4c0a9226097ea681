"""The tree as a stranger sees it: tests mirror the rooms, and files stay small. test_docs.py has README's tree."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted(path.name for path in (ROOT / "advanchor").iterdir() if (path / "__init__.py").is_file())
FILES = sorted(path for top in ("advanchor", "tests") for path in (ROOT / top).rglob("*.py"))
MAX_LINES = 300


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_tests_of_its_name(room: str) -> None:
    assert list((ROOT / "tests" / room).glob("test_*.py"))


def test_no_file_is_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_no_two_tests_share_a_name() -> None:
    """pytest imports a test by its file's name alone where the folder is no package."""
    names = Counter(
        path.name for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").exists()
    )
    assert not [name for name, count in names.items() if count > 1]
