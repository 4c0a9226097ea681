"""What is to be retained: prompts of a base's own world, and how near they are to what is erased."""

import random
import re
import unicodedata

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


def words(text: str) -> list[str]:
    """Lower-case words without accents and punctuation: how a prompt reads to a text encoder, roughly."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))


def mentions(prompt: str, name: str) -> bool:
    """Whether the words of a name stand in a prompt, one after another."""
    return f" {' '.join(words(name))} " in f" {' '.join(words(prompt))} " if words(name) else name in prompt
