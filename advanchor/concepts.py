"""Concepts, the prompts they are erased with."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from advanchor.messages import quoted
from advanchor.settings import Section

KindName = Literal["style", "object", "identity", "explicit"]
CONCEPT_SLOT = "{}"  # stands for the concept in a template
KINDS: tuple[str, ...] = get_args(KindName)
NAME_LENGTH, PROMPT_LENGTH = 500, 10_000  # characters
Prompt = Annotated[str, Field(max_length=PROMPT_LENGTH)]

REFUSED = {"Cc", "Cs", "Co", "Zl", "Zp"}  # control characters, halves of characters, private ones, line separators
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # Persian and emoji are written with them
ARABIC_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2"  # of the class of formats, but seen
TAGS = range(0xE0020, 0xE0080)  # of the flags of England, Scotland and Wales


@dataclass(frozen=True)
class Prompts:
    """The prompts that a concept is erased with: template i's neutral prompt is neutral i."""

    templates: tuple[str, ...]  # each with a slot for the concept
    neutral: tuple[str, ...]  # the same with the superclass in its place


def pairs(*rows: tuple[str, str]) -> Prompts:
    return Prompts(tuple(template for template, _ in rows), tuple(neutral for _, neutral in rows))


def unprintable(text: str) -> str:
    """The first character that no page shows, or that changes how others are shown; empty if there is none."""
    return next((character for character in text if not is_shown(character)), "")


def is_shown(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cf":  # formats: bidi overrides and marks, byte order marks
        return character in JOINERS or character in ARABIC_SIGNS or ord(character) in TAGS
    return category not in REFUSED


def check_text(what: str, text: str) -> None:
    """Raises ValueError for a text with a character that is not printed."""
    if found := unprintable(text):
        title = f"U+{ord(found):04X} {unicodedata.name(found, '')}".rstrip()
        raise ValueError(f"{what} {quoted(text)} has an unprintable character: {title}")


def is_blank(text: str) -> bool:
    return not any(unicodedata.category(character)[0] not in "ZC" for character in text)


class Concept(Section):
    """One thing to erase."""

    name: str = Field(min_length=1, max_length=NAME_LENGTH, description="what prompts call it")
    kind: KindName = Field(description="decides the prompts that are not given, and how the erasure is scored")
    templates: tuple[Prompt, ...] = Field(
        default=(), description='prompts with "{}" where the concept stands; default: the kind\'s'
    )
    neutral: tuple[Prompt, ...] = Field(
        default=(), description="one neutral prompt per template: the superclass in its place"
    )
    attributes: dict[str, float] = Field(
        default={}, description="defining attributes and their weights in the anchor search"
    )
    similar: str = Field(
        default="",
        max_length=NAME_LENGTH,
        description="a concept like it: `anchor: concept` erases towards it, `start: similar` starts the search there",
    )

    def __new__(cls, *positional: object, **_: object) -> Self:
        """pydantic's own message does not say what to write instead."""
        if positional:
            raise TypeError("Concept takes its fields by name: Concept(name='Van Gogh', kind='style')")
        return super().__new__(cls)

    @field_validator("name", "similar")
    @classmethod
    def check_name(cls, value: str, info: Any) -> str:
        check_text(info.field_name, value)
        if value and is_blank(value):
            raise ValueError(f"{info.field_name} {quoted(value)} is blank")
        return value

    @field_validator("templates", "neutral")
    @classmethod
    def check_prompts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in value:
            check_text("prompt", prompt.replace("\n", " ").replace("\t", " "))
        return value

    @field_validator("attributes")
    @classmethod
    def check_attributes(cls, value: dict[str, float]) -> dict[str, float]:
        for attribute in value:
            check_text("attribute", attribute)
        return value

    @model_validator(mode="after")
    def check(self) -> Self:
        if len(self.templates) != len(self.neutral):
            raise ValueError(f"{len(self.templates)} templates need as many neutral prompts, not {len(self.neutral)}")
        for template in self.templates:
            if CONCEPT_SLOT not in template:
                raise ValueError(f"template {quoted(template)} has no {CONCEPT_SLOT} for the concept")
        return self

    def with_prompts(self, defaults: Mapping[str, Prompts]) -> Self:
        """This concept with its kind's prompts filled in, if it has none of its own."""
        if self.templates:
            return self
        prompts = defaults[self.kind]
        return self.model_copy(update={"templates": prompts.templates, "neutral": prompts.neutral})
