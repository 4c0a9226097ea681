"""Image grids: rows of pictures with a caption, as PNG."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 4  # pixels between pictures
EDGE = 96  # of one picture
INK = (40, 40, 48)


def to_pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def enlarge(pixels: np.ndarray, edge: int) -> Image.Image:
    """To `edge` pixels: small pictures keep their pixels sharp, large ones are averaged."""
    image = Image.fromarray(pixels)
    return image.resize((edge, edge), Image.Resampling.NEAREST if image.width < edge else Image.Resampling.LANCZOS)


def grid(rows: Sequence[tuple[str, Tensor]], edge: int = EDGE) -> Image.Image:
    """One row per (caption, images (N, 3, H, W) in [0, 1]); captions stand at the left."""
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


def pictures_of(page: Image.Image, rows: int, columns: int) -> list[list[Image.Image]]:
    """The pictures of a page that `grid` made with its usual edge."""
    step = EDGE + GAP
    left = page.width - columns * step
    boxes = [[(left + x * step, GAP + y * step) for x in range(columns)] for y in range(rows)]
    return [[page.crop((x, y, x + EDGE, y + EDGE)) for x, y in row] for row in boxes]


def overview(pages: Sequence[tuple[str, Image.Image]], columns: int = 4) -> Image.Image:
    """One row per concept: some of its pictures before, and the same ones after. Pages have two rows of eight."""
    font = ImageFont.load_default(size=15)
    margin = max(int(font.getlength(name)) for name, _ in pages) + 3 * GAP
    step, head, middle = EDGE + GAP, 28, 28
    half = columns * step
    sheet = Image.new("RGB", (margin + 2 * half + middle, head + len(pages) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for left, title in ((margin, "before"), (margin + half + middle, "after")):
        draw.text((left, head / 2), title, fill=INK, font=font, anchor="lm")
    for row, (name, page) in enumerate(pages):
        top = head + row * step
        draw.text((2 * GAP, top + EDGE / 2), name, fill=INK, font=font, anchor="lm")
        for side, pictures in enumerate(pictures_of(page, 2, 8)):
            for column, picture in enumerate(pictures[:: len(pictures) // columns]):
                sheet.paste(picture, (margin + side * (half + middle) + column * step, top))
    return sheet


def to_png(page: Image.Image) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
