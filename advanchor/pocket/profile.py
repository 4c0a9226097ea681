"""What is known of the pocket gallery's models: their prompts, their captions, and the classifier that reads them."""

import random
from pathlib import Path
from typing import Any

from advanchor.concepts import Prompts, pairs
from advanchor.models.profile import Profile
from advanchor.pocket import world

WEIGHTS = Path(__file__).parent / "weights"
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


def gallery_captions(count: int, rng: random.Random) -> list[str]:
    """Captions of the pocket gallery's random scenes, as it was trained with."""
    return [world.caption(world.random_scene(rng), rng) for _ in range(count)]


def scorer(device: Any) -> Any:
    from advanchor.pocket.scorer import PocketScorer

    return PocketScorer(device)


PROFILE = Profile(
    name="pocket",
    prompts=POCKET_PROMPTS,
    vocabulary="gallery/captions",
    sample=gallery_captions,
    scorer=scorer,
    bases={"pocket": WEIGHTS / "pipeline", "pocket-sd3": WEIGHTS / "sd3"},
)
