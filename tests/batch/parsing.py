"""Batches given as text."""

from pathlib import Path

import pytest

from advanchor.batch.file import parse_batch
from advanchor.batch.spec import BatchError, BatchSpec
from advanchor.concepts import Concept


def parse(text: str, *overrides: str, folder: Path = Path()) -> tuple[BatchSpec, list[Concept]]:
    read = parse_batch(text, folder / "batch.yaml", overrides)
    return read.spec, read.concepts


def problems(text: str, *overrides: str, folder: Path = Path()) -> list[str]:
    with pytest.raises(BatchError) as caught:
        parse(text, *overrides, folder=folder)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def from_table(folder: Path, table: str, more: str = "") -> str:
    (folder / "concepts.csv").write_text(table)
    return f"model: pocket\nconcepts:\n  - {{from: concepts.csv}}\n{more}"
