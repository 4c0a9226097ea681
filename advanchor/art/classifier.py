"""The classifier that scores the art gallery: one small convolutional net, one head per attribute."""

from functools import partial

from torch import nn

from advanchor.art.world import BACKGROUNDS, CATEGORIES, STYLES, Scene, subjects
from advanchor.pocket.classifier import HeadedNet, convolved

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


class Classifier(HeadedNet):
    """(B, 3, 64, 64) images -> features (B, 192)."""

    def __init__(self) -> None:
        widths = [(3, 32, 2), (32, 64, 2), (64, 128, 2), (128, 128, 1), (128, 128, 2)]
        layers = convolved(widths, partial(nn.GroupNorm, 8))
        super().__init__(nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 192), nn.ReLU()), 192, HEADS)
