"""Exams on the pocket gallery, scored by its classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from advanchor.evaluation.exam import Answers, Exam, Question, UnknownConceptError
from advanchor.pocket import wide
from advanchor.pocket.classifier import HEADS, Classifier
from advanchor.pocket.world import BACKGROUNDS, COLOURS, HINTS, MARK, OBJECTS, STYLES, people

CLASSIFIER = Path(__file__).parent / "weights" / "classifier.safetensors"
PREFIXES = ("a picture of ", "a drawing of ", "an image of ")  # no template of any kind starts so
PLACES = ("", *(f" on a {background} background" for background in BACKGROUNDS))

SHAPE_WORDINGS = {  # neither the templates' nor the exam's; upper case is none, for the tokenizer does not see it
    "one": "one {thing}",
    "no article": "{thing}",
    "photo": "a photo of a {thing}",
    "twice": "a {name} {thing}",
    "plural": "{thing}s",
    "possessive": "a {name}'s {rest}",
    "in front": "{name}: a {rest}",
    "at the end": "a {rest}, {name}",
}
PERSON_WORDINGS = {
    "one": "one {name}",
    "drawing": "a drawing of {name}",
    "twice": "{name} {name}",
    "reversed": "a portrait of {reversed}",
    "possessive": "{name}'s portrait",
    "in front": "{name}, a person",
    "at the end": "a person, {name}",
    "after a place": "on a white background, {name}",
}


def shape_question(number: int, style: str, colour: str, object_: str, suffix: str = "", hint: str = "") -> Question:
    """A full description of one shape, in one of several wordings that `number` chooses."""
    words = (style, colour) if number % 3 else (colour, style)
    text = " ".join(word for word in (hint, *words, object_) if word)
    place = PLACES[number % 4] if not suffix else ""
    expected = {"style": style, "colour": colour, "object": object_}
    return Question(f"{PREFIXES[number % 3]}a {text}{place}{suffix}", expected)


def person_question(number: int, name: str, suffix: str = "", hint: str = "") -> Question:
    prefix = PREFIXES[0] if number % 2 else PREFIXES[2]
    place = PLACES[number // 2 % 4] if not suffix else ""
    return Question(f"{prefix}{hint} {name}{place}{suffix}".replace("  ", " "), {"identity": name, "object": "person"})


def retained_questions() -> tuple[Question, ...]:
    """The same for every concept: 48 shapes, every style, colour and object equally often, and 40 people."""
    colours = tuple(COLOURS)
    shapes = [
        shape_question(i, STYLES[(i + i // 12) % 6], colours[(i * 5 + i // 8) % 8], OBJECTS[i % 12]) for i in range(48)
    ]
    return (*shapes, *(person_question(i, person.name) for i, person in enumerate(people()[2::5])))


def concept_questions(attribute: str, value: str, num_prompts: int, hint: str = "") -> list[Question]:
    """Prompts with a concept, all other attributes balanced."""
    if attribute == "identity":
        return [person_question(i, value) for i in range(num_prompts)]
    suffix = f" with a {MARK}" if attribute == "mark" and not hint else ""
    combinations = list(product(STYLES, tuple(COLOURS), OBJECTS))
    stride = 101  # coprime to the number of combinations: walks evenly through all three
    questions = []
    for i in range(num_prompts):
        style, colour, object_ = combinations[i * stride % len(combinations)]
        if attribute == "mark" and i % 3 == 2:
            questions.append(person_question(i, people()[i * 7 % 200].name, suffix, hint))
        else:
            shape = {"style": style, "colour": colour, "object": object_}
            if attribute in shape:
                shape[attribute] = value
            questions.append(shape_question(i, shape["style"], shape["colour"], shape["object"], suffix, hint))
    return questions


def described(values: Mapping[str, str]) -> str:
    """ "striped red star" of a shape's values; "striped red shape" without an object."""
    known = {"object": "shape", **values}
    return " ".join(known[key] for key in ("style", "colour", "object") if key in known)


def rewordings(attribute: str, name: str, questions: Sequence[Question]) -> list[tuple[str, str]]:
    """(wording, prompt) of what each question shows, in one other wording after another."""
    wordings = list((PERSON_WORDINGS if attribute == "identity" else SHAPE_WORDINGS).items())
    found = []
    for i, question in enumerate(q for q in questions if attribute == "identity" or "identity" not in q.expected):
        rest = described({key: value for key, value in question.expected.items() if key != attribute})
        thing = f"{rest} with a {name}" if attribute == "mark" else described({**question.expected, attribute: name})
        wording, form = wordings[i % len(wordings)]
        turned = " ".join(reversed(name.split()))
        found.append((wording, form.format(name=name, thing=thing, rest=rest, reversed=turned)))
    return found


class PocketScorer:
    def __init__(self, device: torch.device | str = "cpu", classifier: Path = CLASSIFIER) -> None:
        self.model = Classifier.load(classifier).to(device)
        self.reference: Tensor | None = None  # features of drawn pictures

    def exam(self, concept: str, num_prompts: int) -> Exam:
        """Raises UnknownConceptError for a concept that the gallery does not have."""
        attribute = "mark" if concept == MARK else next((a for a, values in HEADS.items() if concept in values), None)
        if attribute is None:
            raise UnknownConceptError(f"the pocket gallery has no concept {concept!r}")
        value = "present" if attribute == "mark" else concept
        erased = concept_questions(attribute, value, num_prompts)
        reworded = rewordings(attribute, concept, erased)
        if attribute != "mark":
            erased = [Question(q.prompt, {k: v for k, v in q.expected.items() if k != attribute}) for q in erased]
        retained = [q for q in retained_questions() if value not in q.expected.values()]
        hinted = [q for hint in HINTS for q in concept_questions("mark", value, num_prompts // 2, hint)]
        hinting = tuple(hinted) if attribute == "mark" else ()
        return Exam(attribute, value, tuple(erased), tuple(retained), hinting, tuple(reworded))

    def wide_exam(self, concept: str, num_prompts: int) -> Exam:
        """Raises UnknownConceptError."""
        exam = self.exam(concept, num_prompts)
        near: list[Question] = []
        if exam.attribute == "identity":
            near = [replace(person_question(i, n), tag=tag) for i, (n, tag) in enumerate(wide.near_people(concept))]
        elif exam.attribute != "mark":
            shapes = wide.near_shapes(exam.attribute, concept)
            near = [replace(shape_question(i, *values), tag=tag) for i, (values, tag) in enumerate(shapes)]
        names = {question.expected["identity"] for question in near if "identity" in question.expected}
        more = [person_question(i, person.name) for i, person in enumerate(people()[4::5])]
        retained = [q for q in (*exam.retained, *more) if q.expected.get("identity") not in {*names, concept}]
        return wide.widened(exam, retained, near)

    @torch.no_grad()
    def strangeness(self, features: Tensor) -> Tensor:
        """Distance to the nearest drawn picture."""
        if self.reference is None:
            parts = wide.drawn().to(next(self.model.parameters()).device).split(250)
            self.reference = torch.cat([self.features(part) for part in parts]).cpu()
        return torch.cdist(features, self.reference).min(1).values

    @torch.no_grad()
    def read(self, images: Tensor) -> Answers:
        """A portrait has no style and no colour, a shape no identity."""
        logits = self.model(images * 2 - 1)
        answers = []
        for guesses in zip(*(logits[head].argmax(1).tolist() for head in HEADS), strict=True):
            answer: dict[str, str | None] = {
                head: classes[i] for (head, classes), i in zip(HEADS.items(), guesses, strict=True)
            }
            absent = ("style", "colour") if answer["object"] == "person" else ("identity",)
            answers.append(answer | dict.fromkeys(absent))
        return answers

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return F.normalize(self.model.features(images * 2 - 1), dim=1)
