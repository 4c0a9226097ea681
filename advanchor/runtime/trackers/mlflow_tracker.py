"""MLflow: a folder of files, or a tracking server by its URL."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


class MLflow:
    name = "mlflow"

    def __init__(self, place: str) -> None:
        self.place = place

    def start(self, run: str, batch: Mapping[str, Any]) -> None:
        if "://" not in self.place:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports] # its pin of importlib_metadata is old

        self.client = MlflowClient(self.place if "://" in self.place else Path(self.place).resolve().as_uri())
        found = self.client.get_experiment_by_name("advanchor")
        experiment = found.experiment_id if found else self.client.create_experiment("advanchor")
        self.run = self.client.create_run(experiment, run_name=Path(run).name).info.run_id
        self.client.log_param(self.run, "model", batch["model"])
        self.client.log_param(self.run, "method", batch["method"]["name"])
        self.client.log_dict(self.run, dict(batch), "batch.json")

    def loss(self, concept: str, step: int, loss: float) -> None:
        self.client.log_metric(self.run, f"loss/{concept}", loss, step=step)

    def done(self, concept: str, scores: Mapping[str, float], pictures: Mapping[str, bytes]) -> None:
        for name, value in scores.items():
            self.client.log_metric(self.run, f"{name}/{concept}", value)
        for name, png in pictures.items():
            self.client.log_image(self.run, Image.open(io.BytesIO(png)).convert("RGB"), f"{concept}/{name}.png")

    def failed(self, concept: str, reason: str) -> None:
        self.client.set_tag(self.run, f"failed/{concept}", reason[:500])

    def end(self, state: str, counts: Mapping[str, int]) -> None:
        for name, number in counts.items():
            self.client.log_metric(self.run, f"tasks/{name}", number)
        self.client.set_terminated(self.run, "FINISHED" if state == "finished" else "FAILED")


make = MLflow
