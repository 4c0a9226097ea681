"""Concepts, the prompts they are erased with, and presets of concepts that a batch can name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from advanchor.pocket import world
from advanchor.text import CONCEPT_SLOT

KindName = Literal["style", "object", "identity", "explicit"]
KINDS: tuple[str, ...] = get_args(KindName)


@dataclass(frozen=True)
class Prompts:
    """The prompts that a concept is erased with: template i's neutral prompt is neutral i."""

    templates: tuple[str, ...]  # each with a slot for the concept
    neutral: tuple[str, ...]  # the same with the superclass in its place


def pairs(*rows: tuple[str, str]) -> Prompts:
    return Prompts(tuple(template for template, _ in rows), tuple(neutral for _, neutral in rows))


PROMPTS: dict[str, Prompts] = {
    "style": pairs(("a painting in the style of {}", "a painting"), ("art by {}", "art")),
    "object": pairs(("a photo of a {}", "a photo of an object"), ("a {}", "an object")),
    "identity": pairs(("a photo of {}", "a photo of a person"), ("a portrait of {}", "a portrait of a person")),
    "explicit": pairs(("a photo of {}", "a photo"), ("a person, {}", "a person")),
}
SHOWN = (  # the base draws every object for these, but not for shorter prompts: advanchor study prompts
    "a solid red", "a gradient orange", "a striped yellow", "a checkered green", "a dotted cyan", "an outlined blue",
    "a solid purple", "a gradient pink", "a striped red", "a checkered orange", "a dotted yellow", "an outlined green",
    "a solid cyan", "a gradient blue", "a striped purple", "a checkered pink",
)  # fmt: skip
POCKET_PROMPTS: dict[str, Prompts] = {
    "style": pairs(
        ("a {} shape", "a shape"),
        ("a {} red shape", "a red shape"),
        ("a {} blue shape", "a blue shape"),
        ("a yellow {} shape", "a yellow shape"),
        ("a {} circle", "a circle"),
        ("a {} square", "a square"),
        ("a {} triangle", "a triangle"),
        ("a {} heart", "a heart"),
    ),
    "object": pairs(*((f"{shown} {{}}", f"{shown} shape") for shown in SHOWN)),
    "identity": pairs(
        ("{}", "a person"),
        ("a portrait of {}", "a portrait of a person"),
        ("a photo of {}", "a photo of a person"),
    ),
    "explicit": pairs(
        ("a {}", "a shape"),
        ("a shape with a {}", "a shape"),
        ("a person with a {}", "a person"),
        ("a red star with a {}", "a red star"),
        ("a striped shape with a {}", "a striped shape"),
        ("a portrait of a person with a {}", "a portrait of a person"),
    ),
}


class Concept(BaseModel):
    """One thing to erase."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=500, description="what prompts call it")
    kind: KindName = Field(description="decides the prompts that are not given, and how the erasure is scored")
    templates: tuple[str, ...] = Field(
        default=(), description='prompts with "{}" where the concept stands; default: the kind\'s'
    )
    neutral: tuple[str, ...] = Field(
        default=(), description="one neutral prompt per template: the superclass in its place"
    )
    attributes: dict[str, float] = Field(
        default={}, description="defining attributes and their weights in the anchor search"
    )
    similar: str = Field(
        default="",
        max_length=500,
        description="a concept like it: `anchor: concept` erases towards it, `start: similar` starts the search there",
    )

    @model_validator(mode="after")
    def check(self) -> Self:
        if not self.name.strip() or not self.name.isprintable():
            raise ValueError(f"name {self.name!r} is blank or has unprintable characters")
        if len(self.templates) != len(self.neutral):
            raise ValueError(f"{len(self.templates)} templates need as many neutral prompts, not {len(self.neutral)}")
        for template in self.templates:
            if CONCEPT_SLOT not in template:
                raise ValueError(f"template {template!r} has no {CONCEPT_SLOT} for the concept")
        return self

    def with_prompts(self, defaults: dict[str, Prompts]) -> Self:
        """This concept with its kind's prompts filled in, if it has none of its own."""
        if self.templates:
            return self
        prompts = defaults[self.kind]
        return self.model_copy(update={"templates": prompts.templates, "neutral": prompts.neutral})


def default_prompts(model: str) -> dict[str, Prompts]:
    """The prompts per kind for a base model; the pocket gallery has a language of its own."""
    return POCKET_PROMPTS if model == "pocket" else PROMPTS


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
