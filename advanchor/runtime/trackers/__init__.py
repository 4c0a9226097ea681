"""Where a run is followed besides its own directory: TensorBoard, Weights & Biases, MLflow, a URL. A file each."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from advanchor.runtime.trackers.watch import Tracker, Watch

TRACKERS = ("tensorboard", "wandb", "mlflow")  # file, class and package are called so; each is an extra of pyproject

__all__ = ["TRACKERS", "Tracker", "Watch", "is_installed", "make_tracker"]


def is_installed(name: str) -> bool:
    return find_spec(name) is not None


def make_tracker(name: str, place: str) -> Tracker:
    """place: a folder; for mlflow also the URL of a tracking server. Nothing is written before the run starts."""
    make: Callable[[str], Tracker] = import_module(f"advanchor.runtime.trackers.{name}_tracker").make
    return make(place)
