"""The classifier that scores the pocket gallery: one small convolutional net, one head per attribute."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from advanchor.pocket.world import BACKGROUNDS, COLOURS, OBJECTS, STYLES, Scene, people

HEADS: dict[str, tuple[str, ...]] = {
    "object": (*OBJECTS, "person"),
    "style": STYLES,  # of shapes only
    "colour": tuple(COLOURS),  # of shapes only
    "background": tuple(BACKGROUNDS),
    "identity": tuple(person.name for person in people()),  # of portraits only
    "mark": ("absent", "present"),
}
IGNORED = -100  # cross_entropy's ignore_index: what a picture has no label for


def labels(scene: Scene) -> list[int]:
    """The class index of a scene in every head, in the order of HEADS; IGNORED where it has none."""
    values = {
        "object": "person" if scene.person else scene.object,
        "style": scene.style,
        "colour": scene.colour,
        "background": scene.background,
        "identity": scene.person.name if scene.person else None,
        "mark": "present" if scene.mark else "absent",
    }
    return [IGNORED if (value := values[head]) is None else HEADS[head].index(value) for head in HEADS]


class Classifier(nn.Module):
    """(B, 3, 32, 32) images in [-1, 1] -> features (B, 128) -> logits (B, classes) for every head."""

    def __init__(self) -> None:
        super().__init__()

        def block(before: int, after: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            return [convolution, nn.BatchNorm2d(after), nn.ReLU()]

        self.body = nn.Sequential(
            *block(3, 32, 1), *block(32, 64, 2), *block(64, 96, 2), *block(96, 96, 2), nn.Flatten(),
            nn.Linear(96 * 4 * 4, 128), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({head: nn.Linear(128, len(classes)) for head, classes in HEADS.items()})

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        return {head: linear(features) for head, linear in self.heads.items()}

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Sum over the heads of their cross-entropies. targets: (B, heads)."""
        logits = self(images)
        parts = [F.cross_entropy(logits[head], targets[:, i], ignore_index=IGNORED) for i, head in enumerate(HEADS)]
        return torch.stack([part for part in parts if not part.isnan()]).sum()

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        model = cls()
        model.load_state_dict(load_file(path))
        return model.float().eval().requires_grad_(False)
