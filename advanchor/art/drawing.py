"""How a scene of the art gallery is drawn: a rendered emoji, at a random size and place, on a plain background."""

import random
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advanchor.art.world import BACKGROUNDS, SIZE, STYLES, Scene, Subject, random_scene

SMALLEST, LARGEST = 44, 60  # pixels along an edge of an emoji in a scene
HELD_OUT = 1_000_000_000  # pictures from this number on are never trained on


def draw(sprite: np.ndarray, scene: Scene, rng: random.Random) -> np.ndarray:
    """A picture of a scene, (SIZE, SIZE, 3) uint8. sprite: (edge, edge, 4) uint8, with transparency."""
    edge = rng.randint(SMALLEST, LARGEST)
    place = rng.randint(0, SIZE - edge), rng.randint(0, SIZE - edge)
    page = Image.new("RGBA", (SIZE, SIZE), (*BACKGROUNDS[scene.background], 255))
    page.alpha_composite(Image.fromarray(sprite).resize((edge, edge), Image.Resampling.LANCZOS), place)
    return np.asarray(page.convert("RGB"))


class Pictures:
    """The gallery's pictures, each a function of the seed and its number."""

    def __init__(self, sprites: np.ndarray, among: Sequence[Subject], seed: int) -> None:
        """sprites: (subjects, styles, edge, edge, 4) uint8, in the order of `among` and STYLES."""
        self.sprites, self.among, self.seed = sprites, among, seed

    @cached_property
    def rows(self) -> dict[str, int]:
        return {subject.name: row for row, subject in enumerate(self.among)}

    def generator(self, number: int, what: str) -> random.Random:
        return random.Random(f"{self.seed}:{what}:{number}")

    def scene(self, number: int) -> Scene:
        return random_scene(self.generator(number, "scene"), self.among)

    def image(self, number: int) -> np.ndarray:
        scene = self.scene(number)
        sprite = self.sprites[self.rows[scene.subject.name], STYLES.index(scene.style)]
        return draw(sprite, scene, self.generator(number, "place"))

    def images(self, numbers: Iterable[int]) -> Tensor:
        """(N, 3, SIZE, SIZE), uint8."""
        return torch.from_numpy(np.stack([self.image(number) for number in numbers])).permute(0, 3, 1, 2).contiguous()
