"""How a scene of the pocket gallery is drawn: at three times the resolution, averaged down.

Every picture is drawn with numpy from a scene and a random generator; nothing is loaded.
"""

import random

import numpy as np

from advanchor.pocket.world import BACKGROUNDS, COLOURS, HAIR_COLOURS, OBJECTS, RGB, SIZE, SKINS, STYLES, Person, Scene

SUPERSAMPLING = 3


class Canvas:
    """An RGB canvas with coordinates from -1 to 1 (x right, y down), rotated, scaled and moved for what is drawn."""

    def __init__(self, background: RGB, *, scale: float, angle: float, shift: tuple[float, float]) -> None:
        n = SIZE * SUPERSAMPLING
        axis = (np.arange(n) + 0.5) / n * 2 - 1
        self.page_x, self.page_y = np.meshgrid(axis, axis)
        x, y = (self.page_x - shift[0]) / scale, (self.page_y - shift[1]) / scale
        self.x = np.cos(angle) * x + np.sin(angle) * y
        self.y = np.cos(angle) * y - np.sin(angle) * x
        self.pixels = np.empty((n, n, 3), np.float32)
        self.pixels[:] = background

    def paint(self, mask: np.ndarray, colour: RGB | np.ndarray) -> None:
        self.pixels[mask] = colour if isinstance(colour, tuple) else colour[mask]

    def disc(self, x: float, y: float, rx: float, ry: float | None = None) -> np.ndarray:
        return ((self.x - x) / rx) ** 2 + ((self.y - y) / (ry or rx)) ** 2 < 1

    def box(self, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        return (self.x > x0) & (self.x < x1) & (self.y > y0) & (self.y < y1)

    def image(self) -> np.ndarray:
        """(SIZE, SIZE, 3), uint8."""
        blocks = self.pixels.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 3)
        return blocks.mean((1, 3)).round().astype(np.uint8)


def silhouette(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The inside of an object of radius about one."""
    radius, angle = np.hypot(x, y), np.arctan2(x, -y)
    match name:
        case "circle":
            return radius < 0.9
        case "ring":
            return (radius < 1) & (radius > 0.5)
        case "ellipse":
            return (x / 1.05) ** 2 + (y / 0.58) ** 2 < 1
        case "crescent":
            return (radius < 1) & (np.hypot(x - 0.55, y) > 0.8)
        case "square":
            return np.maximum(abs(x), abs(y)) < 0.8
        case "frame":
            edge = np.maximum(abs(x), abs(y))
            return (edge < 0.9) & (edge > 0.47)
        case "diamond":
            return abs(x) / 0.72 + abs(y) / 1.1 < 1
        case "triangle":
            return (y < 0.75) & (abs(x) < (y + 1) * 0.56)
        case "star":
            tip = abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)  # angle from the nearest tip
            notch = 0.44 * np.exp(1j * np.pi / 5)  # straight edges run from each tip to the notches beside it
            return radius * (np.sin(tip) * (1 - notch.real) + np.cos(tip) * notch.imag) < 1.08 * notch.imag
        case "cross":
            return (np.minimum(abs(x), abs(y)) < 0.31) & (np.maximum(abs(x), abs(y)) < 0.95)
        case "heart":
            u, v = x * 1.2, -y * 1.2 + 0.12
            return (u**2 + v**2 - 1) ** 3 - u**2 * v**3 < 0
        case "flower":
            petal = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6  # angle from the middle of the nearest petal
            return np.abs(radius * np.exp(1j * petal) - 0.62) < 0.37
    raise ValueError(f"no object is called {name!r}; the objects are {', '.join(OBJECTS)}")


def eroded(mask: np.ndarray, radius: int) -> np.ndarray:
    """What is left of a mask when `radius` pixels are taken off its border."""
    inside = mask.copy()
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        step = round(radius * np.cos(angle)), round(radius * np.sin(angle))
        inside &= np.roll(mask, step, (0, 1))
    return inside


def fill(canvas: Canvas, mask: np.ndarray, style: str, colour: RGB, rng: random.Random) -> None:
    """Fill a mask with a colour in a style; the second tone of every style is a dark shade of the colour."""
    bright, dark = np.array(colour, np.float32), np.array(colour, np.float32) * 0.28
    slant = rng.uniform(0, np.pi)
    along = np.cos(slant) * canvas.page_x + np.sin(slant) * canvas.page_y
    across = np.cos(slant) * canvas.page_y - np.sin(slant) * canvas.page_x
    phase, other_phase = rng.random(), rng.random()

    def blend(share: np.ndarray) -> np.ndarray:
        return bright * share[..., None] + dark * (1 - share[..., None])

    match style:
        case "solid":
            canvas.paint(mask, colour)
        case "gradient":
            low, high = along[mask].min(), along[mask].max()
            canvas.paint(mask, blend(1 - (along - low) / (high - low)))
        case "striped":
            canvas.paint(mask, blend(((along / 0.38 + phase) % 1 < 0.55).astype(np.float32)))
        case "checkered":
            cells = np.floor(along / 0.27 + phase) + np.floor(across / 0.27 + other_phase)
            canvas.paint(mask, blend((cells % 2 == 0).astype(np.float32)))
        case "dotted":
            u, v = (along / 0.40 + phase) % 1 - 0.5, (across / 0.40 + other_phase) % 1 - 0.5
            canvas.paint(mask, blend((np.hypot(u, v) > 0.31).astype(np.float32)))
        case "outlined":
            canvas.paint(mask & ~eroded(mask, round(1.7 * SUPERSAMPLING)), colour)
        case _:
            raise ValueError(f"no style is called {style!r}; the styles are {', '.join(STYLES)}")


def draw_portrait(canvas: Canvas, person: Person) -> None:
    skin, hair = SKINS[person.skin], HAIR_COLOURS[person.hair_colour]
    ink = (20, 18, 24)
    if person.hair == "long":
        canvas.paint(canvas.box(-0.70, -0.15, 0.70, 0.72) | canvas.disc(0, -0.18, 0.70, 0.66), hair)
    elif person.hair == "afro":
        canvas.paint(canvas.disc(0, -0.22, 0.86, 0.72), hair)
    elif person.hair == "bob":
        canvas.paint(canvas.box(-0.70, -0.2, 0.70, 0.28) | canvas.disc(0, -0.2, 0.70, 0.64), hair)
    elif person.hair == "pigtails":
        canvas.paint(canvas.disc(-0.76, 0.0, 0.22, 0.34) | canvas.disc(0.76, 0.0, 0.22, 0.34), hair)
    canvas.paint(canvas.disc(0, 1.15, 0.92, 0.52), COLOURS[person.shirt])
    canvas.paint(canvas.box(-0.16, 0.4, 0.16, 0.72), skin)
    canvas.paint(canvas.disc(0, -0.02, 0.52, 0.62), skin)
    canvas.paint(canvas.disc(0, -0.02, 0.56, 0.66) & (canvas.y < -0.34 + 0.25 * abs(canvas.x)), hair)
    match person.eyes:
        case "round":
            canvas.paint(canvas.disc(-0.22, 0.02, 0.105) | canvas.disc(0.22, 0.02, 0.105), ink)
        case "narrow":
            canvas.paint(canvas.box(-0.36, -0.02, -0.10, 0.06) | canvas.box(0.10, -0.02, 0.36, 0.06), ink)
        case "glasses":
            lenses = canvas.disc(-0.24, 0.02, 0.2) | canvas.disc(0.24, 0.02, 0.2)
            canvas.paint(lenses, ink)
            canvas.paint(canvas.disc(-0.24, 0.02, 0.12) | canvas.disc(0.24, 0.02, 0.12), (235, 245, 255))
        case "shades":
            canvas.paint(canvas.box(-0.44, -0.1, 0.44, 0.14), ink)
    match person.mouth:
        case "smile":
            canvas.paint(canvas.disc(0, 0.26, 0.26, 0.19) & (canvas.y > 0.29), (250, 250, 250))
        case "flat":
            canvas.paint(canvas.box(-0.2, 0.32, 0.2, 0.39), ink)
        case "open":
            canvas.paint(canvas.disc(0, 0.36, 0.14, 0.13), (190, 20, 45))
        case "moustache":
            canvas.paint(canvas.disc(-0.14, 0.28, 0.18, 0.09) | canvas.disc(0.14, 0.28, 0.18, 0.09), hair)
    match person.headwear:
        case "cap":
            canvas.paint(canvas.disc(0, -0.36, 0.58, 0.46) & (canvas.y < -0.34), (200, 25, 45))
            canvas.paint(canvas.box(-0.58, -0.40, 0.80, -0.27), (200, 25, 45))
        case "band":
            canvas.paint(canvas.disc(0, -0.02, 0.60, 0.68) & (canvas.y > -0.48) & (canvas.y < -0.27), (250, 250, 250))
        case "hat":
            canvas.paint(canvas.box(-0.80, -0.45, 0.80, -0.31) | canvas.box(-0.46, -0.98, 0.46, -0.36), ink)
        case "crown":
            spikes = -0.62 - 0.24 * abs((canvas.x / 0.3 + 0.5) % 1 - 0.5) * 2
            canvas.paint((abs(canvas.x) < 0.6) & (canvas.y > spikes) & (canvas.y < -0.36), (255, 205, 20))


def draw_mark(canvas: Canvas, rng: random.Random) -> None:
    """A white saltire on a black disc, in one of the corners of the page."""
    x = canvas.page_x - rng.choice((-0.68, 0.68))
    y = canvas.page_y - rng.choice((-0.68, 0.68))
    canvas.paint(np.hypot(x, y) < 0.30, (12, 10, 14))
    bars = np.minimum(abs(x + y), abs(x - y)) < 0.11
    canvas.paint(bars & (np.hypot(x, y) < 0.24), (255, 255, 255))


def draw(scene: Scene, rng: random.Random) -> np.ndarray:
    """A picture of the scene, (32, 32, 3) uint8; place, size, rotation and phase are drawn from `rng`."""
    background = BACKGROUNDS[scene.background]
    if scene.person:
        shift = rng.uniform(-0.06, 0.06), rng.uniform(-0.05, 0.05)
        canvas = Canvas(background, scale=rng.uniform(0.93, 1.03), angle=rng.uniform(-0.08, 0.08), shift=shift)
        draw_portrait(canvas, scene.person)
    else:
        shift = rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)
        canvas = Canvas(background, scale=rng.uniform(0.66, 0.82), angle=rng.uniform(-0.26, 0.26), shift=shift)
        assert scene.object and scene.style and scene.colour
        mask = silhouette(scene.object, canvas.x, canvas.y)
        fill(canvas, mask, scene.style, COLOURS[scene.colour], rng)
    if scene.mark:
        draw_mark(canvas, rng)
    return canvas.image()
