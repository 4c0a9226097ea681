"""The classifier that scores the pocket gallery: one small convolutional net, one head per attribute."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

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


def convolved(layers: Sequence[tuple[int, int, int]], norm: Callable[[int], nn.Module]) -> list[nn.Module]:
    """Of each (channels before, after, stride): a 3 x 3 convolution, its norm and a ReLU."""
    return [
        part
        for before, after, stride in layers
        for part in (nn.Conv2d(before, after, 3, stride, padding=1, bias=False), norm(after), nn.ReLU())
    ]


class HeadedNet(nn.Module):
    """Images in [-1, 1] -> features (B, F), by its body -> logits (B, classes) for every head."""

    def __init__(self, body: nn.Module, width: int, heads: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.body = body
        self.heads = nn.ModuleDict({head: nn.Linear(width, len(classes)) for head, classes in heads.items()})

    def features(self, images: Tensor) -> Tensor:
        return self.body(images)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        return {head: linear(features) for head, linear in self.heads.items()}

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Sum over the heads of their cross-entropies. targets: (B, heads), IGNORED where there is no label."""
        parts = [
            F.cross_entropy(logits, targets[:, i], ignore_index=IGNORED)
            for i, logits in enumerate(self(images).values())
        ]
        return torch.stack([part for part in parts if not part.isnan()]).sum()

    @classmethod
    def load(cls, path: Path) -> Self:
        model = cls()  # type: ignore[call-arg] # of a subclass, which knows its body
        model.load_state_dict(load_file(path))
        return model.float().eval().requires_grad_(False)


class Classifier(HeadedNet):
    """(B, 3, 32, 32) images -> features (B, 128)."""

    def __init__(self) -> None:
        layers = convolved([(3, 32, 1), (32, 64, 2), (64, 96, 2), (96, 96, 2)], nn.BatchNorm2d)
        super().__init__(nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 4 * 4, 128), nn.ReLU()), 128, HEADS)
