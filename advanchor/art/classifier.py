"""The classifier that scores the art gallery: one small convolutional net, one head per attribute."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from advanchor.art.world import BACKGROUNDS, CATEGORIES, STYLES, Scene, subjects

HEADS: dict[str, tuple[str, ...]] = {
    "object": tuple(subject.name for subject in subjects()),
    "style": STYLES,
    "category": CATEGORIES,
    "background": tuple(BACKGROUNDS),
}


def labels(scene: Scene) -> list[int]:
    """The class index of a scene in every head, in the order of HEADS."""
    values = scene.subject.name, scene.style, scene.subject.category, scene.background
    return [classes.index(value) for classes, value in zip(HEADS.values(), values, strict=True)]


class Classifier(nn.Module):
    """(B, 3, 64, 64) images in [-1, 1] -> features (B, 192) -> logits (B, classes) for every head."""

    def __init__(self) -> None:
        super().__init__()

        def block(before: int, after: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            return [convolution, nn.GroupNorm(8, after), nn.ReLU()]

        self.body = nn.Sequential(
            *block(3, 32, 2), *block(32, 64, 2), *block(64, 128, 2), *block(128, 128, 1), *block(128, 128, 2),
            nn.Flatten(), nn.Linear(128 * 4 * 4, 192), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({head: nn.Linear(192, len(classes)) for head, classes in HEADS.items()})

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        return {head: linear(features) for head, linear in self.heads.items()}

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Sum over the heads of their cross-entropies. targets: (B, heads)."""
        logits = self(images)
        return torch.stack([F.cross_entropy(logits[head], targets[:, i]) for i, head in enumerate(HEADS)]).sum()

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        model = cls()
        model.load_state_dict(load_file(path))
        return model.float().eval().requires_grad_(False)
