"""The gallery's wider exam: other wordings, names that methods are not told of, and the concept's neighbours.

How near two people are is known exactly: in how many of seven parts they differ. What is real is known, too: pictures
that were drawn and not generated.
"""

import random
from collections.abc import Sequence
from dataclasses import astuple, replace
from functools import cache

import torch
from torch import Tensor

from advanchor.evaluation.exam import Exam, Question
from advanchor.pocket.drawing import draw
from advanchor.pocket.world import COLOURS, OBJECTS, STYLES, Person, people, random_scene

OTHER_WORDINGS = {  # that no caption has, and for which the base draws what they name
    "shape": ("a photo of ", "a portrait of ", "a picture with "),
    "person": ("a drawing of ", "one ", "a picture with "),
}
FAMILIES = (OBJECTS[:4], OBJECTS[4:7], OBJECTS[7:])  # round, four-sided, others
HIDDEN = (*STYLES[1::2], *OBJECTS[1::2], *(person.name for person in people()[1::2]))
TOLD_TAG, HIDDEN_TAG, NAMESAKE_TAG = "told", "hidden", "namesake"
NEAREST, FARTHEST, NAMESAKES = 6, 3, 3  # people of each sort that are asked for
SHAPES = 6  # pictures of each sort of shapes
REFERENCE = 500  # drawn pictures that stand for all


def reworded(question: Question, number: int) -> Question:
    """The same question in one of the other wordings."""
    kind = "person" if question.expected.get("object") == "person" else "shape"
    start = question.prompt.index(" of ") + len(" of ")
    wordings = OTHER_WORDINGS[kind]
    return replace(question, prompt=wordings[number % len(wordings)] + question.prompt[start:])


def half_reworded(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Every second question in another wording."""
    return tuple(reworded(question, i // 2) if i % 2 else question for i, question in enumerate(questions))


def told_or_hidden(question: Question) -> Question:
    """Tagged with whether methods are told of all that it names."""
    hidden = any(value in HIDDEN for value in question.expected.values())
    return replace(question, tag=HIDDEN_TAG if hidden else TOLD_TAG)


def distance(a: Person, b: Person) -> int:
    """In how many of the seven parts two people differ: 3 to 7."""
    return sum(x != y for x, y in zip(astuple(a)[1:], astuple(b)[1:], strict=True))


def near_people(name: str) -> list[tuple[str, str]]:
    """(name, tag) of namesakes, of the most similar others and of the least similar ones."""
    own = next(person for person in people() if person.name == name)
    others = [person for person in people() if person is not own]
    same = [person for person in others if person.name.split()[0] == name.split()[0]]
    ranked = sorted((p for p in others if p not in same), key=lambda person: distance(own, person))
    chosen = [(person.name, NAMESAKE_TAG) for person in same[:NAMESAKES]]
    return chosen + [(p.name, f"{distance(own, p)} parts") for p in (*ranked[:NEAREST], *ranked[-FARTHEST:])]


def near_shapes(attribute: str, value: str) -> list[tuple[tuple[str, str, str], str]]:
    """((style, colour, object), tag): other objects of the same family and of others; for a style, other styles."""
    colours = tuple(COLOURS)
    if attribute == "style":
        styles = [style for style in STYLES if style != value] * 2
        return [((s, colours[i * 3 % 8], OBJECTS[i * 5 % 12]), "other style") for i, s in enumerate(styles)]
    family = next(own for own in FAMILIES if value in own)
    same = [(own, "same family") for own in family if own != value] * SHAPES
    rest = [(own, "other family") for own in OBJECTS if own not in family]
    both = [*same[:SHAPES], *rest[:SHAPES]]
    return [((STYLES[i % 6], colours[i * 3 % 8], own), tag) for i, (own, tag) in enumerate(both)]


def widened(exam: Exam, retained: Sequence[Question], near: Sequence[Question]) -> Exam:
    """The exam with half of its prompts in other wordings, these retained questions and these neighbours."""
    asked = {q.prompt for q in near}
    tagged = [told_or_hidden(q) for q in retained if q.prompt not in asked]
    return replace(exam, erased=half_reworded(exam.erased), retained=half_reworded(tagged), near=half_reworded(near))


@cache
def drawn() -> Tensor:
    """Real pictures, (REFERENCE, 3, 32, 32) in [0, 1]: drawn, and none of those that anything was trained with."""
    rng = random.Random("reference")
    pictures = [torch.from_numpy(draw(random_scene(rng), rng)) for _ in range(REFERENCE)]
    return torch.stack(pictures).permute(0, 3, 1, 2).float() / 255
