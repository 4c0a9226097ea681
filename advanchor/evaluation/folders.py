"""Folders of pictures, measured: what a classifier sees in them, and how far two of them are apart.

    FID = frechet_distance of features (Heusel et al. 2017)
    KID = E k(x, x') + E k(y, y') - 2 E k(x, y), k(a, b) = (a . b / d + 1)^3, unbiased (Binkowski et al. 2018)
    H_o = 2 / (1 / (1 - ACC_e) + 1 / ACC_s) of names that are erased and names that stay (Lu et al. 2024, MACE)

Figures in other features than Inception's are comparable with one another only.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

AT_ONCE = 32


class PicturesError(ValueError):
    """A folder or a file that is no picture, named."""


def picture_files(folder: Path) -> list[Path]:
    """The PNG, JPEG and WebP files of a folder, by name. Raises PicturesError if there is none."""
    if not folder.is_dir():
        raise PicturesError(f"{folder} is not a folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not found:
        raise PicturesError(f"{folder} has no pictures (png, jpg, webp)")
    return found


def loaded(path: Path) -> Tensor:
    """(3, H, W) in [0, 1]. Raises PicturesError."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PicturesError(f"{path} is no picture that can be read: {error}") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def batches(files: Sequence[Path]) -> Iterator[list[Tensor]]:
    for start in range(0, len(files), AT_ONCE):
        yield [loaded(path) for path in files[start : start + AT_ONCE]]


def features_of(files: Sequence[Path], features: Callable[[Sequence[Tensor]], Tensor]) -> Tensor:
    """(N, F), float64."""
    return torch.cat([features(pictures) for pictures in batches(files)]).double()


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """KID of features (N, F) and (M, F): the squared maximum mean discrepancy, unbiased, so it may be negative."""

    def k(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        table = k(x, x)
        return (table.sum() - table.diagonal().sum()) / (len(x) * (len(x) - 1))

    a, b = a.double(), b.double()
    return (within(a) + within(b) - 2 * k(a, b).mean()).item()


def harmonic(erased: float, retained: float) -> float:
    """H_o of ACC_e and ACC_s, each in [0, 1]; 0 where nothing is erased or nothing stays."""
    if erased >= 1 or retained <= 0:
        return 0.0
    return 2 / (1 / (1 - erased) + 1 / retained)
