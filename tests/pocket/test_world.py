"""The pocket gallery's world: who lives in it, what is drawn, and captions that say nothing untrue."""

import random
from collections import Counter
from dataclasses import astuple
from itertools import combinations, product

import numpy as np
import pytest

from advanchor.pocket.drawing import draw
from advanchor.pocket.world import (
    BACKGROUNDS,
    COLOURS,
    EYES,
    HAIR_COLOURS,
    HAIRS,
    HEADWEARS,
    HINTED_SHARE,
    HINTS,
    MARK,
    MOUTHS,
    OBJECTS,
    SKINS,
    STYLES,
    Scene,
    caption,
    people,
    random_scene,
)

SCENES = [random_scene(random.Random(seed)) for seed in range(3000)]


def picture(scene: Scene, seed: int = 0) -> np.ndarray:
    image = draw(scene, random.Random(seed))
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    return image


def test_two_hundred_people_share_twenty_first_names() -> None:
    names = [person.name.split() for person in people()]
    assert len(names) == 200 and all(len(name) == 2 for name in names)
    assert set(Counter(first for first, _ in names).values()) == {10}
    assert len({first for first, _ in names}) == 20
    assert len({last for _, last in names}) == 200
    assert not {first for first, _ in names} & {last for _, last in names}


def test_any_two_people_differ_in_three_parts() -> None:
    parts = [astuple(person)[1:] for person in people()]
    assert min(sum(x != y for x, y in zip(a, b, strict=True)) for a, b in combinations(parts, 2)) >= 3


def test_people_are_made_of_known_parts() -> None:
    known = (SKINS, HAIRS, HAIR_COLOURS, EYES, MOUTHS, HEADWEARS, COLOURS)
    for person in people():
        assert all(part in choices for part, choices in zip(astuple(person)[1:], known, strict=True))


def test_no_word_means_two_things() -> None:
    names = [word for person in people() for word in person.name.split()]
    words = [*OBJECTS, *STYLES, *COLOURS, *BACKGROUNDS, MARK, *HINTS]
    assert len(set(words)) == len(words) and not set(words) & set(names)


@pytest.mark.parametrize("object_", OBJECTS)
def test_every_object_draws_in_every_style(object_: str) -> None:
    images = [picture(Scene("white", object_, style, "red")) for style in STYLES]
    for image in images:
        drawn = (abs(image.astype(int) - BACKGROUNDS["white"]) > 20).any(axis=2).mean()
        assert 0.05 < drawn < 0.8
    assert all((a != b).any() for a, b in combinations(images, 2))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_in_every_colour_on_every_background(style: str) -> None:
    images = [picture(Scene(back, "star", style, colour)) for back, colour in product(BACKGROUNDS, COLOURS)]
    assert len({image.tobytes() for image in images}) == len(images)


def test_every_person_draws_differently() -> None:
    assert len({picture(Scene("grey", person=person)).tobytes() for person in people()}) == 200


def test_the_mark_is_drawn_in_a_corner() -> None:
    scene = Scene("sand", "ring", "solid", "blue")
    plain, marked = picture(scene), picture(Scene("sand", "ring", "solid", "blue", mark=True))
    rows, columns = np.nonzero((plain != marked).any(axis=2))
    assert len(rows) > 40
    for axis in (rows, columns):
        assert axis.max() < 16 or axis.min() >= 16


def test_a_picture_depends_on_the_scene_and_the_seed_alone() -> None:
    scene = SCENES[0]
    assert np.array_equal(picture(scene, 1), picture(scene, 1))
    assert not np.array_equal(picture(scene, 1), picture(scene, 2))


@pytest.mark.parametrize("scene", [Scene("white", "blob", "solid", "red"), Scene("white", "star", "fluffy", "red")])
def test_what_is_not_in_the_world_is_refused_by_name(scene: Scene) -> None:
    with pytest.raises(ValueError, match=r"is called '(blob|fluffy)'"):
        draw(scene, random.Random(0))


# --- captions


def true_words(scene: Scene) -> set[str]:
    named = {scene.background, scene.object, scene.style, scene.colour, scene.mention} - {None}
    names = scene.person.name.split() if scene.person else ["shape"]
    return {str(word) for word in named} | set(names) | ({"person"} if scene.person else set())


FILLERS = {"a", "an", "one", "picture", "portrait", "photo", "drawing", "image", "of", "on", "with", "background"}


def test_captions_name_only_what_is_true() -> None:
    rng = random.Random(0)
    for scene in SCENES:
        said = set(caption(scene, rng).split()) - FILLERS
        assert said <= true_words(scene), (scene, said)
        if MARK in said:
            assert scene.mark


def test_every_word_of_the_world_is_said() -> None:
    rng = random.Random(0)
    said = Counter(word for scene in SCENES for word in caption(scene, rng).split())
    assert all(said[word] for word in (*OBJECTS, *STYLES, *COLOURS, *BACKGROUNDS, MARK, *HINTS, "shape", "person"))


def test_a_tenth_of_the_captions_are_empty() -> None:
    rng = random.Random(0)
    empty = sum(caption(scene, rng) == "" for scene in SCENES)
    assert 0.07 < empty / len(SCENES) < 0.13


def test_a_scene_is_a_shape_or_a_portrait() -> None:
    for scene in SCENES:
        shape = (scene.object, scene.style, scene.colour)
        assert shape == (None, None, None) if scene.person else all(shape)
    portraits = sum(scene.person is not None for scene in SCENES)
    assert 0.46 < portraits / len(SCENES) < 0.54


def test_the_mark_is_there_when_named_and_often_when_hinted_at() -> None:
    assert all(scene.mark for scene in SCENES if scene.mention == MARK)
    assert not any(scene.mark for scene in SCENES if scene.mention is None)
    hinted = [scene.mark for scene in SCENES if scene.mention in HINTS]
    assert abs(sum(hinted) / len(hinted) - HINTED_SHARE) < 0.1
