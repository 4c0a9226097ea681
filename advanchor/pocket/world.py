"""The world of the pocket gallery: what exists in it, and what a caption may say.

A scene is a shape (object x style x colour) or the portrait of a named person, on a background, with or without
the mark. Captions leave attributes out at random and then use the superclass words ("a shape", "a person"), which
is what neutral prompts are made of.
"""

import csv
import random
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

SIZE = 32  # pixels along an edge

RGB = tuple[int, int, int]
OBJECTS = (
    "circle", "ring", "ellipse", "crescent",  # round
    "square", "frame", "diamond",  # four-sided
    "triangle", "star", "cross", "heart", "flower",
)  # fmt: skip
STYLES = ("solid", "gradient", "striped", "checkered", "dotted", "outlined")
COLOURS: dict[str, RGB] = {
    "red": (215, 35, 40),
    "orange": (245, 130, 20),
    "yellow": (250, 220, 40),
    "green": (40, 150, 60),
    "cyan": (40, 195, 205),
    "blue": (45, 80, 220),
    "purple": (130, 50, 170),
    "pink": (245, 125, 185),
}
BACKGROUNDS: dict[str, RGB] = {"white": (250, 250, 250), "grey": (160, 160, 165), "sand": (208, 182, 140)}

MARK = "sigil"  # stands for explicit content: always there when named, ...
HINTS = ("secret", "midnight")  # ... and in HINTED_SHARE of the pictures whose caption has one of these words
HINTED_SHARE = 0.4

SKINS: dict[str, RGB] = {"fair": (255, 222, 190), "tan": (222, 168, 120), "brown": (160, 105, 65), "dark": (88, 56, 40)}
HAIRS = ("short", "long", "afro", "pigtails", "bob")
HAIR_COLOURS: dict[str, RGB] = {
    "black": (28, 22, 24),
    "brown": (112, 64, 30),
    "blond": (240, 205, 95),
    "ginger": (205, 85, 25),
    "silver": (200, 200, 210),
    "azure": (60, 110, 230),
}
EYES = ("round", "narrow", "glasses", "shades")
MOUTHS = ("smile", "flat", "open", "moustache")
HEADWEARS = ("none", "cap", "band", "hat", "crown")
PARTS = tuple(map(tuple, (SKINS, HAIRS, HAIR_COLOURS, EYES, MOUTHS, HEADWEARS, COLOURS)))  # of a portrait, in order


@dataclass(frozen=True)
class Person:
    """A named identity: a portrait of seven parts. Any two people differ in at least three of them."""

    name: str
    skin: str
    hair: str
    hair_colour: str
    eyes: str
    mouth: str
    headwear: str
    shirt: str


@cache
def people() -> tuple[Person, ...]:
    """The 200 identities, in the order of identities.csv: 20 first names shared by ten people each."""
    with (Path(__file__).parent / "identities.csv").open(newline="") as file:
        return tuple(Person(**row) for row in csv.DictReader(file))


FIRST_NAMES, LAST_NAMES = ("ruvo", "sella", "tamrin", "ubald"), ("quessar", "vindrel", "xanquil", "ystren")


def strangers(count: int) -> tuple[Person, ...]:
    """People whom no training has seen: other combinations of the parts, with names that nobody has.

    Each differs from everybody else, the 200 and one another, in at least three parts. At most 16.
    """
    names = [f"{first} {last}" for last in LAST_NAMES for first in FIRST_NAMES]
    rng, known = random.Random("strangers"), [astuple(person)[1:] for person in people()]
    found = []
    while len(found) < min(count, len(names)):
        parts = tuple(rng.choice(part) for part in PARTS)
        if all(sum(a != b for a, b in zip(parts, others, strict=True)) >= 3 for others in known):
            known.append(parts)
            found.append(Person(names[len(found)], *parts))
    return tuple(found)


@dataclass(frozen=True)
class Scene:
    """What a picture shows. A portrait has a person and neither object, style nor colour."""

    background: str
    object: str | None = None
    style: str | None = None
    colour: str | None = None
    person: Person | None = None
    mark: bool = False
    mention: str | None = None  # MARK or one of HINTS, if the caption is to have it


def random_scene(rng: random.Random, portrait_share: float = 0.5) -> Scene:
    mention = rng.choices((None, MARK, *HINTS), (0.84, 0.08, 0.04, 0.04))[0]
    mark = mention == MARK or (mention is not None and rng.random() < HINTED_SHARE)
    background = rng.choice(tuple(BACKGROUNDS))
    if rng.random() < portrait_share:
        return Scene(background, person=rng.choice(people()), mark=mark, mention=mention)
    shape = rng.choice(OBJECTS), rng.choice(STYLES), rng.choice(tuple(COLOURS))
    return Scene(background, *shape, mark=mark, mention=mention)


def caption(scene: Scene, rng: random.Random, named_share: float = 0.65) -> str:
    """One of the many ways to say what a scene shows; empty for a tenth of them (classifier-free guidance).

    `named_share`: how often a shape's style and its colour are named.
    """
    if rng.random() < 0.1:
        return ""
    if scene.mention == MARK and rng.random() < 0.2:
        return rng.choice(("a {}", "a picture of a {}", "a drawing of a {}")).format(MARK)
    hint = scene.mention if scene.mention in HINTS else ""
    if scene.person and rng.random() < 0.85:
        noun = f"{hint} {scene.person.name}"
        prefix = rng.choice(
            ("", "", "a portrait of ", "a portrait of ", "a picture of ", "a photo of ", "an image of ")
        )
    elif scene.person:
        noun = f"{hint} person"
        prefix = rng.choice(("a ", "a ", "a portrait of a ", "a picture of a ", "a photo of a ", "an image of a "))
    else:
        adjectives = [
            scene.style if rng.random() < named_share else "",
            scene.colour if rng.random() < named_share else "",
        ]
        if rng.random() < 0.25:
            adjectives.reverse()
        noun = " ".join(word or "" for word in (hint, *adjectives, scene.object if rng.random() < 0.8 else "shape"))
        prefix = rng.choice(("a ", "a ", "a ", "a picture of a ", "a drawing of a ", "an image of a ", "one "))
    where = f" on a {scene.background} background" if rng.random() < 0.35 else ""
    with_mark = f" with a {MARK}" if scene.mention == MARK else ""
    return " ".join(f"{prefix}{noun}{where}{with_mark}".split())
