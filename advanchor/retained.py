"""What is to be retained: prompts of a base's own world, and how near they are to what is erased."""

import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from advanchor.concepts import Concept, KindName
from advanchor.models.base import Base
from advanchor.pocket import world
from advanchor.text import CONCEPT_SLOT, Prompt, PromptError, fill

CHUNK = 256  # prompts encoded at a time


def gallery_captions(count: int, rng: random.Random) -> list[str]:
    """Captions of the pocket gallery's random scenes, as it was trained with."""
    return [world.caption(world.random_scene(rng), rng) for _ in range(count)]


PLACES = ("on a table", "in a city", "in a forest", "by the sea", "in the snow", "at night", "on a white background")
THINGS = (
    "a man", "a woman", "a child", "a person", "people", "a dog", "a cat", "a horse", "a bird", "a fish", "a flower",
    "a tree", "a mountain", "a river", "a house", "a street", "a bridge", "a car", "a train", "a boat", "a bicycle",
    "a chair", "a table", "a cup", "a bottle", "a book", "a clock", "a lamp", "a guitar", "a loaf of bread", "an apple",
    "a cake", "a plate of food", "a shirt", "a hat", "a shoe", "a phone", "a computer", "a robot", "a castle",
)  # fmt: skip
MEDIA = ("", "a photo of ", "a painting of ", "a drawing of ", "a portrait of ", "a picture of ", "a 3d render of ")


def general_prompts(count: int, rng: random.Random) -> list[str]:
    """Everyday things in everyday places, for bases whose own captions are not at hand."""
    return [f"{rng.choice(MEDIA)}{rng.choice(THINGS)} {rng.choice(('', *PLACES))}".strip() for _ in range(count)]


Context = tuple[str, str]  # a template, and the same without the concept
EXAM_WORDS = ("picture", "drawing", "image")  # the gallery's exams begin with them: its contexts have none of them


def gallery_context(kind: KindName, rng: random.Random) -> Context:
    """A caption of the pocket gallery with a slot, and the same caption with the superclass in its place."""
    scene = world.random_scene(rng, portrait_share={"identity": 1.0, "explicit": 0.3}.get(kind, 0.0))
    wording = rng.random()
    if kind == "explicit":  # whose people are nobody in particular: names are for `retain` to tell
        person = scene.person and replace(scene.person, name="a person")
        scene = replace(scene, person=person, mention=world.MARK)
        said = world.caption(scene, random.Random(wording))
        neutral = "a shape" if f" with a {world.MARK}" not in said else said.replace(f" with a {world.MARK}", "")
        return said.replace(world.MARK, CONCEPT_SLOT), neutral
    scene = replace(scene, mention=None if kind == "identity" else scene.mention)
    values = (CONCEPT_SLOT, {"style": "", "object": "shape", "identity": "a person"}[kind])
    if kind == "identity":
        assert scene.person
        scenes = [replace(scene, person=replace(scene.person, name=value)) for value in values]
    else:
        scenes = [replace(scene, **{kind: value}) for value in values]
    with_slot, neutral = (world.caption(scene, random.Random(wording)) for scene in scenes)
    return with_slot, neutral


def general_context(kind: KindName, rng: random.Random) -> Context:
    """An everyday prompt with a slot, and the same without."""
    medium, thing, place = rng.choice(MEDIA), rng.choice(THINGS), rng.choice(("", *PLACES))
    with_slot, neutral = {
        "style": (f"{thing} {place} in the style of {CONCEPT_SLOT}", f"{thing} {place}"),
        "object": (f"a {CONCEPT_SLOT} {place}", f"an object {place}"),
        "identity": (f"{CONCEPT_SLOT} {place}", f"a person {place}"),
        "explicit": (f"{thing} {place}, {CONCEPT_SLOT}", f"{thing} {place}"),
    }[kind]
    return tidy(medium + with_slot), tidy(medium + neutral)


def tidy(text: str) -> str:
    """Without spaces before commas, at the end, or two in a row."""
    return " ".join(text.split()).replace(" ,", ",")


VOCABULARIES: dict[str, Callable[[int, random.Random], list[str]]] = {
    "gallery/captions": gallery_captions,
    "general": general_prompts,
}


CONTEXTS: dict[str, Callable[[KindName, random.Random], Context]] = {
    "gallery/captions": gallery_context,
    "general": general_context,
}


def sampled_contexts(model: str, concept: Concept, count: int) -> list[Context]:
    """At most `count` different contexts of the base's own vocabulary in which a concept of this kind may stand.

    They depend on the concept alone, so that what it contributes to a fusion can be taken out again.
    """
    draw, rng = CONTEXTS[own_vocabulary(model)], random.Random(f"contexts {concept.name}")
    drawn = [draw(concept.kind, rng) for _ in range(8 * count)]
    fit = [
        (slot, neutral) for slot, neutral in drawn if CONCEPT_SLOT in slot and not set(EXAM_WORDS) & set(words(slot))
    ]
    return list(dict.fromkeys(fit))[:count]


def in_contexts(base: Base, concept: Concept, count: int) -> Concept:
    """The concept with further templates and neutral prompts: sampled contexts that it fits into.

    An identity stays as it is: names stand in few places, and their neurons, which must tell names apart that share
    words, did so worse with more of them.
    """
    if concept.kind == "identity" or not count:
        return concept
    fitting = [pair for pair in sampled_contexts(base.name, concept, count) if fits(base, pair[0], concept.name)]
    templates, neutral = zip(*fitting, strict=True) if fitting else ((), ())
    changes = {"templates": concept.templates + templates, "neutral": concept.neutral + neutral}
    return concept.model_copy(update=changes)


def fits(base: Base, template: str, name: str) -> bool:
    """Whether a concept stands in a template whole, and is not cut off at the end."""
    try:
        base.concept_tokens([fill(template, name)])
    except PromptError:
        return False
    return True


def own_vocabulary(model: str) -> str:
    """The key of VOCABULARIES that a base speaks."""
    return "gallery/captions" if model == "pocket" else "general"


def sampled_prompts(vocabulary: str, count: int, seed: int, without: Sequence[str] = ()) -> list[str]:
    """At most `count` different prompts of a vocabulary, none of which mentions a name of `without`."""
    sampled = VOCABULARIES[vocabulary](count, random.Random(f"{vocabulary} {seed}"))
    unique = [prompt for prompt in dict.fromkeys(sampled) if words(prompt)]
    return [prompt for prompt in unique if not any(mentions(prompt, name) for name in without)]


def words(text: str) -> list[str]:
    """Lower-case words without accents and punctuation: how a prompt reads to a text encoder, roughly."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))


def mentions(prompt: str, name: str) -> bool:
    """Whether the words of a name stand in a prompt, one after another."""
    return f" {' '.join(words(name))} " in f" {' '.join(words(prompt))} " if words(name) else name in prompt


@torch.no_grad()
def encode_all(base: Base, prompts: Sequence[str | Prompt]) -> Tensor:
    """(len(prompts), L, D) on the CPU, some at a time."""
    parts = [base.encode(prompts[i : i + CHUNK]).prompt_embeds.cpu() for i in range(0, len(prompts), CHUNK)]
    return torch.cat(parts)


def meaning(prompt_embeds: Tensor) -> Tensor:
    """(B, D) of length one: a prompt's mean embedding over all positions but the first."""
    return F.normalize(prompt_embeds[:, 1:].mean(1), dim=1)


def neighbours(base: Base, embeds: Tensor, erased: Sequence[Concept], count: int) -> Tensor:
    """Indices of the prompts that are among the `count` nearest to any concept, by cosine of their meanings."""
    if not count or not erased:
        return torch.empty(0, dtype=torch.long)
    named = meaning(encode_all(base, [fill(concept.templates[0], concept.name) for concept in erased]))
    similarity = named @ meaning(embeds).T
    return similarity.topk(min(count, len(embeds)), dim=1).indices.unique()
