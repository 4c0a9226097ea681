"""docs/advanchor.ipynb runs from top to bottom, and what is kept of it in the repository is small and whole."""

import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "notebook.py"


def script() -> Any:
    """docs/notebook.py, which is no module of the program."""
    found = importlib.util.spec_from_file_location("notebook", SCRIPT)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def pictures(book: nbformat.NotebookNode) -> list[bool]:
    """Of every code cell, whether it shows a picture."""
    shown = [[output.get("data", {}) for output in cell.outputs] for cell in book.cells if cell.cell_type == "code"]
    return [any("image/png" in data for data in outputs) for outputs in shown]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = script()
    book, kept = nbformat.read(notebook.NOTEBOOK, as_version=4), nbformat.read(notebook.NOTEBOOK, as_version=4)
    notebook.run(book, tmp_path)
    assert pictures(book) == pictures(kept)
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    assert "2 done" in said and "2 concepts in runs/notebook/fused" in said and "as diffusers loads it" in said
    assert (tmp_path / "runs" / "notebook" / "lora" / "fused.safetensors").is_file()


def test_what_is_kept_is_small_and_names_no_machine() -> None:
    notebook = script()
    text, book = notebook.NOTEBOOK.read_text(), nbformat.read(notebook.NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert len(text) < 700_000 and sum(pictures(book)) == 5
    assert not any(part in text for part in ("/tmp/", "/home/", "/root/", "Traceback", "\\u001b"))
