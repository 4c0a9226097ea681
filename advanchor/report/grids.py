"""Image grids: rows of pictures with a caption, as PNG."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 4  # pixels between pictures


def to_pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def enlarge(pixels: np.ndarray, edge: int) -> Image.Image:
    """To `edge` pixels: small pictures keep their pixels sharp, large ones are averaged."""
    image = Image.fromarray(pixels)
    return image.resize((edge, edge), Image.Resampling.NEAREST if image.width < edge else Image.Resampling.LANCZOS)


def grid(rows: Sequence[tuple[str, Tensor]], edge: int = 96) -> Image.Image:
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
        draw.text((2 * GAP, top + edge / 2), caption, fill=(40, 40, 48), font=font, anchor="lm")
        for column, image in enumerate(images):
            page.paste(enlarge(to_pixels(image), edge), (margin + GAP + column * step, top))
    return page


def to_png(page: Image.Image) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
