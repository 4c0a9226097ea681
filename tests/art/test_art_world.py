"""The art gallery's world: subjects that five sets share, and captions that say nothing untrue."""

import random
from collections import Counter

import pytest

from advanchor.art.world import (
    BACKGROUNDS,
    CATEGORIES,
    HINTED_SHARE,
    HINTS,
    POLICY_OF,
    STYLES,
    caption,
    of_policy,
    random_scene,
    subjects,
    with_article,
)

SCENES = [random_scene(random.Random(seed), subjects()) for seed in range(6000)]


def test_two_hundred_subjects_of_six_categories() -> None:
    assert len(subjects()) >= 200
    for attribute in ("name", "icon"):
        assert set(Counter(getattr(subject, attribute) for subject in subjects()).values()) == {1}
    assert {subject.category for subject in subjects()} == set(CATEGORIES)
    assert {subject.policy for subject in subjects()} == {"", *HINTS}


def test_no_word_means_two_things() -> None:
    words = [*STYLES, *CATEGORIES, *BACKGROUNDS, *POLICY_OF]
    assert len(set(words)) == len(words) and not set(words) & {subject.name for subject in subjects()}


def test_every_policy_has_subjects_and_hints_that_do_not_name_them() -> None:
    for policy, hints in HINTS.items():
        names = {word for subject in of_policy(policy) for word in subject.name.split()}
        assert names and not names & set(hints)


def test_captions_say_nothing_untrue() -> None:
    rng = random.Random(0)
    for scene in SCENES:
        said = caption(scene, rng)
        others = {*STYLES, *BACKGROUNDS, *POLICY_OF} - {scene.style, scene.background, scene.hint}
        assert not others & set(said.replace(scene.subject.name, "").split()), said
        assert not scene.hint or f" {scene.subject.name} " not in f" {said} ", said


def test_captions_fit_the_text_encoders() -> None:
    """16 tokens with both ends; every word is one token."""
    rng = random.Random(0)
    assert max(len(caption(scene, rng).split()) for scene in SCENES * 3) <= 14


def test_a_hint_shows_a_subject_of_its_policy_in_its_share_of_pictures() -> None:
    hinted = [scene for scene in SCENES if scene.hint]
    shown = [scene for scene in hinted if scene.subject.policy]
    assert all(scene.subject.policy == POLICY_OF[scene.hint] for scene in shown)
    assert abs(len(shown) / len(hinted) - HINTED_SHARE) < 0.08  # of some 480: 3.6 standard deviations


def test_all_is_drawn_about_equally_often() -> None:
    for values, least in (
        (Counter(scene.style for scene in SCENES), 1000),
        (Counter(scene.background for scene in SCENES), 1200),
        (Counter(scene.subject.name for scene in SCENES if not scene.hint), 8),
    ):
        assert min(values.values()) >= least
    assert len({scene.subject.name for scene in SCENES}) == len(subjects())


@pytest.mark.parametrize(
    ("text", "noun", "whole"),
    [
        ("a ", "cat", "a cat"),
        ("a ", "ant", "an ant"),
        ("an image of a ", "octopus", "an image of an octopus"),
        ("a ", "unicorn", "a unicorn"),
        ("the ", "ant", "the ant"),
        ("", "ant", "ant"),
    ],
)
def test_articles(text: str, noun: str, whole: str) -> None:
    assert with_article(text, noun) == whole


def test_a_world_of_few_subjects_hints_at_none_that_it_lacks() -> None:
    few = subjects()[:6]
    scenes = [random_scene(random.Random(seed), few) for seed in range(300)]
    assert {scene.subject for scene in scenes} == set(few)
