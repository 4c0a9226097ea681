"""The scores of an erasure, counted by hand."""

from dataclasses import replace

import pytest

from advanchor.evaluation.exam import Answers, Exam, Question, hits, recognised, score, share

STRIPED_STAR = Question("a striped red star", {"object": "star", "colour": "red"})
STRIPED_RING = Question("a striped ring", {"object": "ring"})
SOLID_STAR = Question("a solid star", {"style": "solid", "object": "star"})
DOTTED = Question("a dotted blue shape", {"style": "dotted", "colour": "blue"})
EXAM = Exam("style", "striped", erased=(STRIPED_STAR, STRIPED_RING), retained=(SOLID_STAR, DOTTED))


def seen(style: str | None, object_: str, colour: str) -> dict[str, str | None]:
    return {"style": style, "object": object_, "colour": colour}


ERASED: Answers = [seen("solid", "star", "blue"), seen("striped", "ring", "red")]
RETAINED: Answers = [seen("solid", "star", "red"), seen("striped", "heart", "blue")]


def test_the_scores_of_four_pictures() -> None:
    # erased: striped is seen in one of two. Other attributes: star right, red wrong, ring right: 2 of 3.
    # retained: the style is right in one of two. Other attributes: star right, blue right: 2 of 2. All: 4 of 5.
    assert score(EXAM, {"erased": ERASED, "retained": RETAINED}) == {
        "ua": 0.5,
        "ira": 0.5,
        "cra": pytest.approx(4 / 5),
        "cra_with": pytest.approx(2 / 3),
        "cra_without": 1.0,
        "hinted": None,
        "unasked": 0.5,
    }


def test_hinted_is_the_share_that_shows_the_concept() -> None:
    mark = Exam("mark", "present", (DOTTED,), (DOTTED,), hinted=(DOTTED,) * 4)
    answers: dict[str, Answers] = {
        "erased": [{"mark": "absent", "style": "dotted", "colour": "red"}],
        "retained": [{"mark": "present", "style": "dotted", "colour": "blue"}],
        "hinted": [{"mark": "present"}, {"mark": "absent"}, {"mark": "absent"}, {"mark": "absent"}],
    }
    found = score(mark, answers)
    assert (found["ua"], found["hinted"], found["unasked"]) == (1.0, 0.25, 1.0)
    assert (found["cra_with"], found["cra_without"]) == (0.5, 1.0)
    assert found["ira"] is None  # no other value of the mark is ever asked for


def test_some_of_the_retained_questions_are_kept_always_the_same() -> None:
    many = replace(EXAM, retained=tuple(Question(f"a {i}", {}) for i in range(10)))
    kept = many.keeping(4).retained
    assert len(kept) == 4 and all(question in many.retained for question in kept) and many.keeping(4).retained == kept
    assert many.keeping(None) == many.keeping(10) == many and many.keeping(4).erased == many.erased


def test_nothing_to_count_is_none_not_zero() -> None:
    bare = Exam("style", "striped", (Question("striped", {}),), (Question("a shape", {}),))
    found = score(bare, {"erased": [seen("solid", "star", "red")], "retained": [seen("solid", "star", "red")]})
    accuracies = dict.fromkeys(("ira", "cra", "cra_with", "cra_without", "hinted"))
    assert found == {"ua": 1.0, **accuracies, "unasked": 0.0}
    assert share([]) is None and share([True, False, False, True]) == 0.5


def test_an_attribute_that_is_not_seen_is_wrong_and_not_the_concept() -> None:
    answers: Answers = [seen(None, "person", "red")]
    assert hits([SOLID_STAR], answers) == [False, False]
    assert recognised(EXAM, answers) == 0.0


def test_hits_choose_among_the_attributes() -> None:
    questions, answers = [SOLID_STAR, DOTTED], RETAINED
    assert hits(questions, answers) == [True, True, False, True]
    assert hits(questions, answers, only="style") == [True, False]
    assert hits(questions, answers, without="style") == [True, True]


def test_an_answer_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        score(EXAM, {"erased": ERASED[:1], "retained": RETAINED})


def test_questions_are_repeated_next_to_each_other() -> None:
    repeated = EXAM.repeated({"erased": 2, "retained": 1, "hinted": 3})
    assert repeated.erased == (STRIPED_STAR, STRIPED_STAR, STRIPED_RING, STRIPED_RING)
    assert (repeated.retained, repeated.hinted) == (EXAM.retained, ())
