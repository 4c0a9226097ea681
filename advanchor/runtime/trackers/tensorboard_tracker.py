"""TensorBoard: event files in a folder of each run's own."""

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class TensorBoard:
    name = "tensorboard"

    def __init__(self, place: str) -> None:
        self.folder = Path(place) / time.strftime("%Y%m%d-%H%M%S")

    def start(self, run: str, batch: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder))
        self.writer.add_text("batch", f"    {json.dumps(batch, indent=2)}".replace("\n", "\n    "))
        self.writer.add_text("run", run)

    def loss(self, concept: str, step: int, loss: float) -> None:
        self.writer.add_scalar(f"loss/{concept}", loss, step)

    def done(self, concept: str, scores: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
        for name, value in scores.items():
            self.writer.add_scalar(f"{name}/{concept}", value, 0)
        for name, png in pictures.items():
            self.writer.add_image(
                f"{name}/{concept}", np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), 0, dataformats="HWC"
            )
        self.writer.flush()

    def failed(self, concept: str, reason: str) -> None:
        self.writer.add_text(f"failed/{concept}", reason)

    def end(self, state: str, counts: Mapping[str, int]) -> None:
        self.writer.add_text("end", f"{state}: {dict(counts)}")
        self.writer.close()


make = TensorBoard
