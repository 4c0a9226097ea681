"""The gallery's wider exam: other wordings, hidden names, neighbours, and what is real."""

import pytest
import torch

from advanchor import models
from advanchor.batch.plan import scores_key
from advanchor.concepts import Concept
from advanchor.evaluation.evaluator import Evaluator, by_tag
from advanchor.evaluation.exam import Question
from advanchor.evaluation.generate import generate, numbered_seeds
from advanchor.evaluation.settings import EvaluationSettings, SamplingSettings
from advanchor.models.base import Base
from advanchor.pocket.scorer import PREFIXES, PocketScorer
from advanchor.pocket.wide import HIDDEN, OTHER_WORDINGS, distance, drawn, near_people
from advanchor.pocket.world import MARK, people

NAMES = ("striped", "heart", people()[3].name, MARK)
OTHERS = tuple(prefix for own in OTHER_WORDINGS.values() for prefix in own)


@pytest.fixture(scope="module")
def base() -> Base:
    return models.load("pocket")


@pytest.fixture(scope="module")
def scorer() -> PocketScorer:
    return PocketScorer()


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_prompts_are_worded_as_no_caption_is(name: str, scorer: PocketScorer) -> None:
    exam = scorer.wide_exam(name, 20)
    for group in (exam.erased, exam.retained, exam.near):
        for i, question in enumerate(group):
            own = OTHER_WORDINGS["person" if question.expected.get("object") == "person" else "shape"]
            assert question.prompt.startswith(own) == (i % 2 == 1), question
        assert all(q.prompt.startswith((*PREFIXES, *OTHERS)) for q in group)
    assert all(name in q.prompt for q in exam.erased)
    assert not any(name in q.prompt for q in (*exam.retained, *exam.near))
    assert {q.tag for q in exam.retained} == {"told", "hidden"} and bool(exam.near) == (name != MARK)
    for question in exam.retained:
        assert (question.tag == "hidden") == any(value in HIDDEN for value in question.expected.values())


def test_neighbours_of_a_person_are_namesakes_and_others_by_the_parts_that_differ(scorer: PocketScorer) -> None:
    known = {person.name: person for person in people()}
    name = people()[3].name
    found = near_people(name)
    for other, tag in found:
        if tag == "namesake":
            assert other.split()[0] == name.split()[0]
        else:
            assert tag == f"{distance(known[name], known[other])} parts" and other.split()[0] != name.split()[0]
    asked = scorer.wide_exam(name, 4)
    assert not {q.expected.get("identity") for q in asked.retained} & {name, *(other for other, _ in found)}


def test_the_base_draws_what_is_asked_in_other_wordings(base: Base, scorer: PocketScorer) -> None:
    for name in NAMES:
        exam = scorer.wide_exam(name, 8)
        prompts = [q.prompt for q in exam.erased if q.prompt.startswith(OTHERS)]
        pictures = generate(base, prompts, numbered_seeds(prompts, 0), SamplingSettings(steps=6, solver="dpm"))
        seen = sum(answer[exam.attribute] == exam.value for answer in scorer.read(pictures)) / len(prompts)
        assert seen >= 0.75, (name, seen)


def test_noise_is_stranger_than_a_drawn_picture(scorer: PocketScorer) -> None:
    real, noise = drawn()[:8], torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    strange = scorer.strangeness(scorer.features(torch.cat([real, noise])))
    assert strange[:8].max() < 1e-2 < strange[8:].min()


def test_tags_count_their_own_pictures(base: Base, scorer: PocketScorer) -> None:
    settings = EvaluationSettings(exam="wide", num_prompts=2, images_per_prompt=1, num_retained=4, steps=2)
    evaluator = Evaluator(base, scorer, settings)
    asked = [Question("a picture of a red star", {"object": "star"}, "near"), Question("a picture of", {}, "far")]
    seen = evaluator.see(asked, 1)
    exam = evaluator.exam("heart")
    changed = type(seen)([{"object": "ring"}, {}], seen.features + 0.5, seen.preview)
    found = by_tag(type(exam)("object", "heart", (), tuple(asked)), {"retained": seen}, {"retained": changed})
    assert found["far"]["pictures"] == 1 and found["near"]["right"] == 0 and found["far"]["right"] == 1
    assert found["near"]["moved"] == pytest.approx(0.5 * seen.features.shape[1] ** 0.5, rel=1e-4)


def test_a_plain_exam_leaves_known_scores_valid_and_a_scorer_has_no_wide_one(base: Base) -> None:
    plain, wide = EvaluationSettings(), EvaluationSettings(exam="wide")
    assert scores_key(base.digest, plain) == scores_key(base.digest, EvaluationSettings(exam="plain"))
    assert scores_key(base.digest, plain) != scores_key(base.digest, wide)
    with pytest.raises(ValueError, match="has none"):
        EvaluationSettings.model_validate({"exam": "wide", "scorer": {"clip": "somewhere"}})


def test_hidden_names_are_hidden_from_the_projection(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    from advanchor.methods.fixed_anchor import Settings
    from advanchor.models.profile import sampled_prompts
    from advanchor.models.vocabulary import mentions

    told = sampled_prompts(base.profile.vocabulary, 300, 0, HIDDEN)
    assert told and not any(mentions(prompt, name) for prompt in told for name in HIDDEN)
    assert "retain_without" in Settings(retain_weight=1).unused  # ids of tasks that hide nothing stay what they were
    assert "retain_without" not in Settings(retain_weight=1, retain_without=("heart",)).unused
    assert Concept(name="heart", kind="object")
