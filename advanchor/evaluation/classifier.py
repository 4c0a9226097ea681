"""Any image classifier as a judge of pictures: a folder that AutoModelForImageClassification loads, and its labels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advanchor.models import ModelError


def check_classifier(folder: Path) -> dict[str, Any]:
    """Its config.json. Raises ModelError: only folders with a config, its labels and safetensors are loaded."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} is no image classifier: {path.name}: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("id2label"), dict):
        raise ModelError(f"{folder} is no image classifier: its config.json names no labels (id2label)")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} has no *.safetensors; pickled weights are never loaded")
    return config


class ImageClassifier:
    """Reads pictures of any size. Its features are what its last Linear is given."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """Raises ModelError."""
        check_classifier(folder)
        from transformers import AutoModelForImageClassification

        try:
            self.model: Any = AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{folder} is no image classifier that transformers can load: {error}") from error
        self.model.eval().requires_grad_(False).to(device)
        self.labels = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]
        self.edge, self.mean, self.std = preparation(folder, self.model.config)
        linears = [module for module in self.model.modules() if isinstance(module, torch.nn.Linear)]
        if not linears:
            raise ModelError(f"{folder}: the model has no Linear whose input could be its features")
        self.last = linears[-1]

    def prepared(self, pictures: Sequence[Tensor]) -> Tensor:
        """Pictures (3, H, W) in [0, 1], resized to the model's edge and normalised, (B, 3, edge, edge)."""
        size = (self.edge, self.edge)
        resized = [F.interpolate(p[None], size, mode="bilinear", antialias=True, align_corners=False) for p in pictures]
        stacked = torch.cat(resized).to(self.model.device)
        mean, std = (stacked.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (stacked - mean) / std

    @torch.no_grad()
    def look(self, pictures: Sequence[Tensor]) -> tuple[list[str], Tensor]:
        """The label of each picture, and its features (B, F)."""
        given: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
        try:
            logits = self.model(pixel_values=self.prepared(pictures)).logits
        finally:
            hook.remove()
        return [self.labels[i] for i in logits.argmax(1).tolist()], given[-1].flatten(1).float().cpu()

    def features(self, pictures: Sequence[Tensor]) -> Tensor:
        return self.look(pictures)[1]

    def read(self, pictures: Sequence[Tensor]) -> list[str]:
        return self.look(pictures)[0]


def preparation(folder: Path, config: Any) -> tuple[int, list[float], list[float]]:
    """Edge, mean and deviation that the model was trained with: of preprocessor_config.json, else its config's edge."""
    path = folder / "preprocessor_config.json"
    try:
        own = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    size = own.get("crop_size") or own.get("size") or getattr(config, "image_size", None) or 224
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or 224
    if not own.get("do_normalize", bool(own)):
        return int(size), [0.0] * 3, [1.0] * 3
    return int(size), own.get("image_mean") or [0.5] * 3, own.get("image_std") or [0.5] * 3
