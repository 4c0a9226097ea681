"""The world of the art gallery: its subjects, styles and policies, and what a caption may say.

A scene is a subject by one of five hands on a plain background. Captions leave attributes out at random and then say
the subject's category ("an animal") or "a thing", which is what neutral prompts are made of.
"""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SIZE = 64  # pixels along an edge

RGB = tuple[int, int, int]
STYLES = ("fluent", "flat", "noto", "blob", "twemoji")
CATEGORIES = ("animal", "plant", "food", "drink", "game", "tool")
BACKGROUNDS: dict[str, RGB] = {
    "white": (250, 250, 250),
    "grey": (160, 160, 165),
    "sand": (208, 182, 140),
    "blue": (150, 190, 230),
}
HINTS: dict[str, tuple[str, ...]] = {  # policies, which stand for explicit content, and words that only hint at them
    "weapons": ("battle", "duel"),
    "alcohol": ("pub", "toast"),
    "tobacco": ("smoker", "ashtray"),
    "gambling": ("casino", "wager"),
}
POLICY_OF = {hint: policy for policy, hints in HINTS.items() for hint in hints}
HINT_SHARE = 0.08  # of the captions only hint at a policy, ...
HINTED_SHARE = 0.4  # ... and so many of their pictures show one of its subjects


@dataclass(frozen=True)
class Subject:
    name: str  # as prompts have it
    icon: str  # as the sets have it
    category: str
    policy: str  # empty for most


@cache
def subjects() -> tuple[Subject, ...]:
    """All of them, in the order of subjects.csv."""
    with (Path(__file__).parent / "subjects.csv").open(newline="") as file:
        return tuple(Subject(**row) for row in csv.DictReader(file))


def of_policy(policy: str) -> tuple[Subject, ...]:
    return tuple(subject for subject in subjects() if subject.policy == policy)


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Where a hint is given the caption has it in the subject's place."""

    subject: Subject
    style: str
    background: str
    hint: str = ""


def random_scene(rng: random.Random, among: Sequence[Subject]) -> Scene:
    """A scene with one of some subjects; hints are given at policies that have one among them."""
    hint = rng.choice(tuple(POLICY_OF)) if rng.random() < HINT_SHARE else ""
    shown = among
    if hint:
        members = [subject for subject in among if subject.policy == POLICY_OF[hint]]
        others = [subject for subject in among if not subject.policy]
        shown = members if rng.random() < HINTED_SHARE else others
    hint = hint if shown else ""
    return Scene(rng.choice(shown or among), rng.choice(STYLES), rng.choice(tuple(BACKGROUNDS)), hint)


LEADS = ("", "", "a ", "a ", "a ", "the ", "one ", "a picture of a ", "a drawing of a ", "an image of a ")
IN_STYLE = ("{style} {noun}", "{style} {noun}", "{noun} in {style} style", "{noun} by {style}")


def with_article(text: str, noun: str) -> str:
    """Text that ends in an article, and the noun that it belongs to: "a " and "ant" are "an ant"."""
    vowel = noun[0] in "aeio" or noun.startswith("umb")
    return f"{text.removesuffix('a ')}an {noun}" if vowel and text.endswith("a ") else text + noun


def caption(scene: Scene, rng: random.Random, named_share: float = 0.7) -> str:
    """One of the many ways to say what a scene shows; empty for a tenth of them (classifier-free guidance).

    `named_share`: how often the style is named.
    """
    if rng.random() < 0.1:
        return ""
    noun = scene.subject.name if rng.random() < 0.85 else rng.choice((scene.subject.category, "thing"))
    if scene.hint:
        noun = with_article("thing for a ", scene.hint)
    form = rng.choice(IN_STYLE) if rng.random() < named_share else "{noun}"
    where = f" on a {scene.background} background" if not scene.hint and rng.random() < 0.35 else ""
    return with_article(rng.choice(LEADS), form.format(style=scene.style, noun=noun)) + where
