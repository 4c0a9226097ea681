"""What `advanchor check` finds in a list of concepts, and what it leaves alone."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from advanchor import models
from advanchor.batch.findings import NEAR, aliases, check, near_duplicates, overlong, slips, spellings, undrawn
from advanchor.batch.presets import PRESETS
from advanchor.batch.retain import Retain, weighted_prompts
from advanchor.cli import app
from advanchor.concepts import Concept
from advanchor.evaluation.settings import SamplingSettings
from advanchor.models.base import Base
from advanchor.models.vocabulary import mentions, words
from advanchor.pocket.profile import POCKET_PROMPTS
from advanchor.pocket.scorer import PocketScorer


def styles(*names: str) -> list[Concept]:
    return [Concept(name=name, kind="style", templates=("a {} shape",), neutral=("a shape",)) for name in names]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def test_words_are_what_a_text_encoder_reads() -> None:
    assert words("Dr. Seuss") == words("dr seuss") == ["dr", "seuss"]
    assert words("Cézanne") == words("CEZANNE") and words("star") != words("stars")


@pytest.mark.parametrize(
    ("prompt", "name", "expected"),
    [
        ("a Red Star", "red star", True),
        ("a starry night", "star", False),
        ("art by Vincent van Gogh.", "van gogh", True),
        ("gogh van", "van gogh", False),
    ],
)
def test_a_prompt_mentions_whole_words_in_order(prompt: str, name: str, expected: bool) -> None:
    assert mentions(prompt, name) is expected


def test_names_that_differ_in_case_accents_or_punctuation() -> None:
    found = spellings(styles("Paul Cezanne", "paul cézanne", "Dr. Seuss", "dr seuss", "Seuss"))
    assert [(f.first, f.second) for f in found] == [("Paul Cezanne", "paul cézanne"), ("Dr. Seuss", "dr seuss")]


def test_a_name_within_another_may_be_an_alias() -> None:
    (found,) = aliases(styles("Vincent van Gogh", "Van Gogh", "Gogan", "Vincent Price"))
    assert (found.first, found.second) == ("Van Gogh", "Vincent van Gogh")


def test_the_same_word_in_another_kind_is_no_alias() -> None:
    assert not aliases([*styles("star"), Concept(name="star wars", kind="object")])


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ("Kelly McKernan", "Kelly McKernon", True),
        ("Keith Haring", "Kieth haring", True),  # letters that have changed places are one slip
        ("Salvador Dali", "Salvadore Dali", True),
        ("Monet", "Manet", False),  # too short to tell
        ("Claude Monet", "Edouard Manet", False),
        ("Van Gogh", "van gogh", False),  # a spelling
    ],
)
def test_slips_of_the_pen(a: str, b: str, found: bool) -> None:
    assert [(slip.first, slip.second) for slip in slips(styles(a, b))] == ([(a, b)] if found else [])
    assert not slips([*styles(a), Concept(name=b, kind="object")])


def test_a_name_too_long_for_the_base_is_said_and_the_others_are_compared(base: Base) -> None:
    long = "striped " * 20 + "!"
    found = check(styles("striped", "striped ", long), base=base)
    assert ("long", long) == (found[0].kind, found[0].first) and [f.kind for f in found[1:]] == [
        "spelling",
        "alias",
        "alias",
    ]
    assert not overlong(styles("striped"), base)


def test_near_duplicates_by_text_embedding(base: Base) -> None:
    """The first two read the same to the tokenizer, the third does not; what the distance is stands in the message."""
    (found,) = near_duplicates(styles("striped", "striped ", "circle"), base)
    assert {found.first, found.second} == {"striped", "striped "} and "0.00" in found.message
    embeds = base.encode(["a striped shape", "a circle shape", "a shape"]).prompt_embeds[:, 1:].mean(1)
    ratio = (embeds[0] - embeds[1]).norm() / torch.minimum(*(embeds[:2] - embeds[2]).norm(dim=1))
    assert ratio > NEAR


def test_nothing_in_the_gallery_is_a_near_duplicate() -> None:
    concepts = [
        c.with_prompts(POCKET_PROMPTS) for preset, make in PRESETS.items() if preset[:7] == "gallery" for c in make()
    ]
    assert len(concepts) > 200
    [found] = check(concepts, base=models.load("pocket"))  # of 200 people, two that differ in a letter
    assert (found.kind, found.first, found.second) == ("slip", "bruno holdan", "bruno huldan")


def test_what_is_found_by_name_is_not_found_again_by_embedding(base: Base) -> None:
    assert [finding.kind for finding in check(styles("striped", "Striped"), base=base)] == ["spelling"]


def test_sampled_prompts_leave_the_erased_concepts_out() -> None:
    erased = [Concept(name="star", kind="object", templates=("a {}",), neutral=("a shape",))]
    retain = Retain(presets=("gallery/captions",), count=400)
    found, everything = weighted_prompts(retain, erased), weighted_prompts(retain, [])
    assert any(mentions(prompt, "star") for prompt in everything)
    assert set(found) - {"a shape"} == {p for p in everything if not mentions(p, "star")} - {"a shape"}
    assert "a shape" in found and "" not in found and len(found) > 200


def test_a_users_weights_win_over_samples() -> None:
    found = weighted_prompts(Retain(prompts=({"prompt": "a shape", "weight": 7},)), styles("striped"))  # type: ignore
    assert found == {"a shape": 7.0}


# --- the command


def test_a_list_without_a_model(tiny_base: Path, tmp_path: Path) -> None:
    file = tmp_path / "concepts.yaml"
    file.write_text("concepts:\n  - {name: Striped, kind: style}\n  - {name: striped, kind: style}\n")
    (tmp_path / "retain.yaml").write_text("prompts: [a striped star, a blue circle]\n")
    done = command(file, "--model", tiny_base, "--retain", tmp_path / "retain.yaml", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [entry["kind"] for entry in found] == ["retained", "retained", "spelling"]
    assert "'a striped star' names 'striped'" in found[1]["message"]


def test_a_sound_batch_and_a_table(tiny_base: Path, tmp_path: Path) -> None:
    batch = f"model: {tiny_base}\nconcepts: [{{from: names.csv}}]\n"
    (tmp_path / "batch.yaml").write_text(batch)
    (tmp_path / "names.csv").write_text("name,kind\nstriped,style\ncircle,object\n")
    for arguments in (["batch.yaml"], ["names.csv", "--names-only"]):
        done = command(tmp_path / arguments[0], *arguments[1:])
        assert done.exit_code == 0 and "2 concepts, 0 findings" in done.stdout, done.output


def test_mistakes_in_the_file_have_their_place(tmp_path: Path) -> None:
    (tmp_path / "concepts.yaml").write_text("concepts:\n  - {name: a, kind: stlye}\n  - {name: b, kind: style}\n")
    done = command(tmp_path / "concepts.yaml")
    assert done.exit_code == 2 and "concepts.yaml:2:15: concepts.0.kind: 'stlye' is not one of style" in done.stderr
    (tmp_path / "concepts.yaml").write_text("concepts: [{name: a, kind: style}, {name: a, kind: style}]\n")
    done = command(tmp_path / "concepts.yaml", "--names-only")
    assert done.exit_code == 2 and "'a' is already in the batch (concepts.0)" in done.stderr


@pytest.mark.slow
def test_what_the_base_does_not_draw_is_found_by_drawing(tmp_path: Path) -> None:
    """The gallery's base draws a circle for "a circle" but not for "a red circle"."""
    path = tmp_path / "concepts.yaml"
    neutral = ["a shape", "a red shape"]
    circle = {"name": "circle", "kind": "object", "templates": ["a {}", "a red {}"], "neutral": neutral}
    heart = circle | {"name": "heart"}
    path.write_text(json.dumps({"concepts": [circle, heart]}))
    done = command(path, "--draw", 4, "--json")
    (found,) = json.loads(done.stdout)
    assert done.exit_code == 1 and (found["kind"], found["first"], found["second"]) == (
        "undrawn",
        "circle",
        "a red circle",
    )
    assert "1 of the 2 prompts" in found["message"]
    assert command(path, "--draw", 1, "--names-only").exit_code == 2
    assert command(path).exit_code == 0


def test_concepts_that_a_scorer_does_not_know_are_not_drawn() -> None:
    base, (unknown,) = models.load("pocket"), styles("cubism")
    assert undrawn([unknown], base, PocketScorer(), SamplingSettings(steps=1), 1) == []


def test_drawing_needs_something_that_can_see(tiny_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "concepts.yaml"
    concept = {"name": "star", "kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}
    path.write_text(json.dumps({"model": str(tiny_base), "concepts": [concept], "evaluate": None}))
    done = command(path, "--draw", 1)
    assert done.exit_code == 2 and "set evaluate.scorer" in done.stderr
