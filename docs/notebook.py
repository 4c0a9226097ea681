"""Runs advanchor.ipynb anew, in a folder of its own, and keeps of its outputs what a reader wants: text and pictures.

python docs/notebook.py
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("advanchor.ipynb")
PATIENCE_S = 1200  # for one cell
DRAWN_OVER = re.compile(r".*\x1b\[\d*[AK]", re.DOTALL)  # by a live view
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def run(book: nbformat.NotebookNode, folder: Path) -> None:
    """Execute every cell in `folder`, with the commands of this Python's environment."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        NotebookClient(book, timeout=PATIENCE_S, resources={"metadata": {"path": str(folder)}}).execute()
    finally:
        os.environ["PATH"] = before


def tidy(cell: nbformat.NotebookNode, folder: Path) -> None:
    """Leave out progress, warnings, doubled pictures and the folder's name."""
    cell.metadata.clear()
    printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    shown = [output for output in cell.outputs if "image/png" in output.get("data", {})]
    for output in shown:
        output.data = {"image/png": output.data["image/png"], "text/plain": "a picture"}
    text = ESCAPES.sub("", DRAWN_OVER.sub("", printed)).replace(f"{folder}/", "").strip()
    lines = [line.rstrip() for line in text.splitlines() if "[WARNING]" not in line]
    streams = [nbformat.v4.new_output("stream", name="stdout", text="\n".join(lines) + "\n")] if text else []
    cell.outputs = [*streams, *shown]


def main() -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        run(book, folder)
        for cell in book.cells:
            if cell.cell_type == "code":
                tidy(cell, folder)
    book.metadata.pop("language_info", None)
    nbformat.write(book, NOTEBOOK)


if __name__ == "__main__":
    main()
