"""Tiny pipelines as single files."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from advanchor.export.original import checkpoint


def save(pipeline: Any, path: Path) -> Path:
    save_file({name: tensor.clone() for name, tensor in checkpoint(pipeline).items()}, path)
    return path


def configuration(pipeline: Any, folder: Path) -> Path:
    """A pipeline's folder without any weights."""
    pipeline.save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    return folder
