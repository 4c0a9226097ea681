from pathlib import Path
from typing import Any

import pytest
from tiny_erasures import load


@pytest.fixture
def pipeline(tiny_base: Path) -> Any:
    return load(tiny_base)
