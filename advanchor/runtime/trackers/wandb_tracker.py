"""Weights & Biases. Offline unless WANDB_MODE says otherwise: nothing leaves the machine before `wandb sync`."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


class WeightsAndBiases:
    name = "wandb"

    def __init__(self, place: str) -> None:
        self.folder = Path(place)

    def start(self, run: str, batch: Mapping[str, Any]) -> None:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)  # wandb takes another folder in silence
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"{self.folder} cannot be written")
        self.run = wandb.init(
            project="advanchor",
            name=Path(run).name,
            dir=str(self.folder),
            config=dict(batch),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type] # wandb checks it
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def loss(self, concept: str, step: int, loss: float) -> None:
        self.run.log({f"loss/{concept}": loss, f"step/{concept}": step})

    def done(self, concept: str, scores: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
        from wandb import Image as Picture

        shown = {f"{name}/{concept}": Picture(Image.open(io.BytesIO(png))) for name, png in pictures.items()}
        self.run.log({f"{name}/{concept}": value for name, value in scores.items()} | shown)

    def failed(self, concept: str, reason: str) -> None:
        self.run.summary[f"failed/{concept}"] = reason

    def end(self, state: str, counts: Mapping[str, int]) -> None:
        self.run.summary.update({"state": state, **{f"tasks/{name}": number for name, number in counts.items()}})
        self.run.finish(exit_code=0 if state == "finished" else 1)


make = WeightsAndBiases
