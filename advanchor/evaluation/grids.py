"""Image grids: rows of pictures with a caption, as PNG."""

import io
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 4  # pixels between pictures
EDGE, LARGE = 96, 256  # of one picture: at least, at most
INK = (40, 40, 48)


def to_pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def enlarge(pixels: np.ndarray, edge: int) -> Image.Image:
    """To `edge` pixels: small pictures keep their pixels sharp, large ones are averaged."""
    image = Image.fromarray(pixels)
    return image.resize((edge, edge), Image.Resampling.NEAREST if image.width < edge else Image.Resampling.LANCZOS)


def edge_of(rows: Sequence[tuple[str, Tensor]]) -> int:
    """The pictures' own edge, as far as it is neither too small to be seen nor too large to be kept."""
    return min(max(EDGE, *(images.shape[-1] for _, images in rows)), LARGE)


def grid(rows: Sequence[tuple[str, Tensor]], edge: int | None = None) -> Image.Image:
    """One row per (caption, images (N, 3, H, W) in [0, 1]); captions stand at the left."""
    edge = edge or edge_of(rows)
    font = ImageFont.load_default(size=15)
    margin = max((int(font.getlength(caption)) for caption, _ in rows), default=0)
    margin = margin + 3 * GAP if margin else 0
    columns = max(len(images) for _, images in rows)
    step = edge + GAP
    page = Image.new("RGB", (margin + columns * step + GAP, len(rows) * step + GAP), "white")
    draw = ImageDraw.Draw(page)
    for row, (caption, images) in enumerate(rows):
        top = GAP + row * step
        draw.text((2 * GAP, top + edge / 2), caption, fill=INK, font=font, anchor="lm")
        for column, image in enumerate(images):
            page.paste(enlarge(to_pixels(image), edge), (margin + GAP + column * step, top))
    return page


def pictures_of(page: Image.Image, rows: int, columns: int, size: int | None = EDGE) -> list[list[Image.Image]]:
    """The pictures of a page that `grid` made, each (size, size); None: as large as they are there."""
    edge = min(max((page.height - GAP) // rows - GAP, 1), LARGE)
    step = edge + GAP
    left = page.width - columns * step
    boxes = [[(left + x * step, GAP + y * step) for x in range(columns)] for y in range(rows)]
    size = size or edge
    return [[page.crop((x, y, x + edge, y + edge)).resize((size, size)) for x, y in row] for row in boxes]


def pixels_of(picture: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1] of an RGB picture: what `to_pixels` makes the same picture of."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def overview(
    pages: Sequence[tuple[str, Image.Image]],
    titles: Sequence[str] = ("before", "after"),
    wide: int = 8,
    columns: int = 4,
) -> Image.Image:
    """One row per concept: some pictures of every row of its page, side by side under the rows' titles.

    Pages have a row per title, of `wide` pictures.
    """
    font = ImageFont.load_default(size=15)
    margin = max(int(font.getlength(name)) for name, _ in pages) + 3 * GAP
    step, head, middle = EDGE + GAP, 28, 28
    half = columns * step
    width = margin + len(titles) * (half + middle) - middle
    sheet = Image.new("RGB", (width, head + len(pages) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for side, title in enumerate(titles):
        draw.text((margin + side * (half + middle), head / 2), title, fill=INK, font=font, anchor="lm")
    for row, (name, page) in enumerate(pages):
        top = head + row * step
        draw.text((2 * GAP, top + EDGE / 2), name, fill=INK, font=font, anchor="lm")
        for side, pictures in enumerate(pictures_of(page, len(titles), wide)):
            for column, picture in enumerate(pictures[:: len(pictures) // columns]):
                sheet.paste(picture, (margin + side * (half + middle) + column * step, top))
    return sheet


def decoded(data: bytes) -> Image.Image | None:
    """None for a picture that cannot be decoded."""
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
        return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError):
        return None


def to_png(page: Image.Image) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
