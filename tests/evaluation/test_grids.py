import numpy as np
import pytest
import torch
from PIL import Image

from advanchor.evaluation.grids import EDGE, GAP, LARGE, grid, overview, pictures_of


@pytest.mark.parametrize(("size", "edge"), [(32, EDGE), (128, 128), (512, LARGE)])
def test_pictures_keep_their_size_within_bounds(size: int, edge: int) -> None:
    images = torch.zeros(8, 3, size, size)
    page = grid([("base", images), ("erased", images)])
    assert page.height == 2 * (edge + GAP) + GAP


@pytest.mark.parametrize("size", [32, 200, 512])
def test_pictures_are_found_again_on_a_page(size: int) -> None:
    shades = torch.linspace(0, 1, 16).view(2, 8, 1, 1, 1).expand(2, 8, 3, size, size)
    page = grid([("base", shades[0]), ("erased", shades[1])])
    found = pictures_of(page, 2, 8)
    values = [np.asarray(picture)[EDGE // 2, EDGE // 2, 0] for row in found for picture in row]
    assert values == [round(255 * i / 15) for i in range(16)]
    assert {picture.size for row in found for picture in row} == {(EDGE, EDGE)}


@pytest.mark.parametrize("size", [(1, 1), (3, 40_000), (40_000, 3)])
def test_a_page_of_any_shape_has_a_place_in_the_overview(size: tuple[int, int]) -> None:
    assert overview([("odd", Image.new("RGB", size))]).height == 28 + EDGE + GAP
