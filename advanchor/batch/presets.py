"""Presets: concepts that a batch can name without listing them."""

from collections.abc import Callable

from advanchor.concepts import Concept, KindName
from advanchor.pocket import world


def named(kind: KindName, *names: str) -> tuple[Concept, ...]:
    return tuple(Concept(name=name, kind=kind) for name in names)


def paper(kind: KindName, *names: str, attributes: dict[str, float] | None = None) -> tuple[Concept, ...]:
    """Concepts of the paper, with its one template for everything."""
    prompts = {"templates": ("{} painting",), "neutral": ("painting",), "attributes": attributes or {}}
    return tuple(Concept(name=name, kind=kind, **prompts) for name in names)


NUDENET_LABELS = {  # what a detector of nudity looks for, by how often it found each (the authors' weights)
    "FEMALE BREAST EXPOSED": 0.24539877,
    "FEMALE GENITALIA EXPOSED": 0.03190184,
    "MALE GENITALIA EXPOSED": 0.02699387,
    "MALE BREAST EXPOSED": 0.05644172,
    "BUTTOCKS EXPOSED": 0.06257669,
    "ARMPITS EXPOSED": 0.25889571,
    "BELLY EXPOSED": 0.2404908,
    "FEET EXPOSED": 0.07730061,
}


PRESETS: dict[str, Callable[[], tuple[Concept, ...]]] = {
    "gallery/styles": lambda: named("style", *world.STYLES),
    "gallery/objects": lambda: named("object", *world.OBJECTS),
    "gallery/identities": lambda: named("identity", *(person.name for person in world.people())),
    "gallery/mark": lambda: named("explicit", world.MARK),
    "paper/styles": lambda: paper(
        "style", "Van Gogh", "Picasso", "Cezanne", "Jackson Pollock", "Caravaggio", "Keith Haring", "Kelly McKernan",
        "Tyler Edlin", "Kilian Eng",
    ),
    "paper/objects": lambda: paper(
        "object", "chain saw", "church", "gas pump", "tench", "garbage truck", "english springer", "golf ball",
        "parachute", "french horn",
    ),
    "paper/nudity": lambda: paper("explicit", "nudity", attributes=NUDENET_LABELS),
}  # fmt: skip
