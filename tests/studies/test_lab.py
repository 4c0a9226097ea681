"""Tables and trials of studies."""

from advanchor.methods import fixed_anchor, uce
from advanchor.models import load
from advanchor.studies.lab import (
    Found,
    Size,
    Trial,
    around,
    concepts,
    crossed,
    effort,
    markdown,
    percent,
    tables,
    text,
    thousandths,
)

COLUMNS = {"name": ("name", text), "ua": ("UA", around(percent)), "cost": ("cost", thousandths)}


def test_a_value_stands_with_its_interval_and_nothing_is_a_dash() -> None:
    rows = [
        {"name": "a", "ua": (0.5, 0.25, 0.75), "cost": 0.0123},
        {"name": "b", "ua": (0.5, None, None), "cost": None},
        {"name": "d", "ua": (0.5, 0.25, None), "cost": None},
        {"name": "c", "ua": None, "cost": None},
    ]
    assert markdown(rows, COLUMNS).splitlines() == [
        "| name | UA | cost |",
        "|---|---|---|",
        "| a | 50.0 (25.0 to 75.0) | 12.3 |",
        "| b | 50.0 | – |",
        "| d | 50.0 (25.0 or more) | – |",
        "| c | – | – |",
    ]


def test_rows_of_another_make_have_a_table_of_their_own_and_empty_columns_go() -> None:
    first, second = tables([{"name": "a", "cost": 1.0}, {"name": "b"}], COLUMNS).split("\n\n")
    assert "cost" in first and "UA" not in first and second.splitlines() == ["| name |", "|---|", "| b |"]


def test_every_concept_meets_every_setting_and_seed_but_what_draws_nothing_is_done_once() -> None:
    rows = {"trained": fixed_anchor.Settings(), "solved": uce.Settings()}
    found = crossed(concepts(load("pocket"), "style", ("striped", "solid")), lambda _: rows, Size(seeds=3))
    assert [(t.concept.name, t.label, t.seed) for t in found if t.label == "solved"] == [
        ("striped", "solved", 0), ("solid", "solved", 0),
    ]  # fmt: skip
    assert sum(t.label == "trained" for t in found) == 6


def test_an_erasure_that_two_rows_share_has_taken_its_time_once() -> None:
    trial = Trial("row", concepts(load("pocket"), "style", ("striped",))[0], uce.Settings(), 0)
    seconds = {"erasing": 1.5, "evaluating": 2.0}
    exams = (("a", "short"), ("b", "short"), ("a", "short"), ("a", "long"))
    results = [{"task": task, "scores_key": key, "seconds": seconds} for task, key in exams]
    assert effort([Found(trial, result, bytes) for result in results]) == (3, 10.5)
