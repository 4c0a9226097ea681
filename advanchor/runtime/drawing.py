"""A table of prompts, drawn by one process or by several of a cluster that share a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advanchor import api, models
from advanchor.evaluation.prompt_table import PromptRow, draw_missing
from advanchor.evaluation.settings import SamplingSettings
from advanchor.runtime.place import Place


@dataclass(frozen=True)
class Drawing:
    """All that a process needs to know to draw its share of a table; paths are absolute."""

    model: str
    deltas: tuple[str, ...]
    rows: tuple[PromptRow, ...]
    folder: str
    settings: SamplingSettings


def draw(drawing: Drawing, share: int = 0, shares: int = 1, device: str = "cpu") -> dict[str, int]:
    """Draw one of so many shares of what the folder lacks: how many pictures by folder, base and erased."""
    base, folder = models.load(drawing.model, device=device), Path(drawing.folder)

    def drawn(name: str) -> int:
        return sum(draw_missing(base, drawing.rows, folder / name, drawing.settings, share, shares))

    counts = {"base": drawn("base")}
    if drawing.deltas:
        for path in drawing.deltas:
            api.apply(base.pipeline, path)
        counts["erased"] = drawn("erased")
    return counts


def draw_on_gangs(drawing: Drawing, gangs: int, place: Place) -> Iterator[dict[str, int]]:
    """Draw every share in a process of a cluster, each on a GPU where it has any; what each has drawn, as it ends.

    The folder must be the same on every node. A process that dies is started again three times. Raises ClusterError.
    """
    import ray
    from ray.exceptions import RayError

    from advanchor.runtime.errors import ClusterError
    from advanchor.runtime.ray_cluster import connected, first_line

    with connected(place.address, allow_without_token=place.allow_without_token):
        gpus = int(ray.cluster_resources().get("GPU", 0) > 0)
        share: Any = ray.remote(draw).options(num_cpus=1, num_gpus=gpus, max_retries=3)
        pending = [share.remote(drawing, i, gangs, "cuda" if gpus else "cpu") for i in range(gangs)]
        while pending:
            done, pending = ray.wait(pending)
            try:
                yield from ray.get(done)
            except RayError as error:
                raise ClusterError(
                    f"a process that draws: {first_line(getattr(error, 'cause', None) or error)}"
                ) from error
