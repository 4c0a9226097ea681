"""The anchors that methods are put together from."""

from typing import Any

import pytest
import torch
from quick import SETTINGS, adv

from advanchor import methods
from advanchor.concepts import Concept
from advanchor.methods import continue_from, fixed_anchor, guarded_anchor, hardened_anchor, speed
from advanchor.methods.adv_anchor import Anchor
from advanchor.methods.anchors import (
    LearnedAnchor,
    anchor_prompts,
    finished_anchor,
    text_anchor,
)
from advanchor.methods.far_anchor import FarAnchor, FarSettings, along_and_across
from advanchor.training.context import Batch, Context

QUICK: dict[str, Any] = {
    "steps": 3, "anchor_steps": 2, "lr": 1e-2, "anchor_lr": 1e-2, "batch_size": 2, "num_latents": 2, "latent_steps": 2,
}  # fmt: skip
STAR = Concept(name="star", kind="object", templates=("a red {}", "a {}"), neutral=("a red shape", "a shape"))
ASK: dict[str, tuple[Any, str]] = {  # settings that want a similar concept, and what they then say
    "fixed_anchor": (fixed_anchor.Settings(anchor="concept"), "anchor: concept asks for anchor_concept"),
    "speed": (speed.Settings(anchor="concept"), "anchor: concept asks for anchor_concept"),
    "guarded_anchor": (guarded_anchor.Settings(start="similar"), "start: similar asks for start_concept"),
    "hardened_anchor": (hardened_anchor.Settings(start="similar"), "start: similar asks for start_concept"),
    "continue_from": (
        continue_from.Settings(
            lr=1, method=guarded_anchor.Settings(start="similar"), start="", start_sha256="", round=1
        ),
        "start: similar asks for start_concept",
    ),
}


def test_what_stands_in_the_concepts_place() -> None:
    assert anchor_prompts(STAR, "own") == ("a red star", "a star")
    assert anchor_prompts(STAR, "superclass") == ("a red shape", "a shape")
    assert anchor_prompts(STAR, "empty") == ("", "")
    alike = STAR.model_copy(update={"similar": "cross"})
    assert anchor_prompts(alike, "similar") == anchor_prompts(alike, "concept") == ("a red cross", "a cross")
    assert anchor_prompts(alike, "concept", "circle") == ("a red circle", "a circle")


def test_text_anchors_are_the_packs_own_embeddings(context: Context) -> None:
    assert torch.equal(text_anchor(context, "own").prompt_embeds, context.e_c.prompt_embeds)
    assert torch.equal(text_anchor(context, "superclass").prompt_embeds, context.e_n.prompt_embeds)


@pytest.mark.parametrize("name", ASK)
def test_a_method_says_that_it_wants_a_similar_concept(name: str) -> None:
    settings, said = ASK[name]
    assert methods.problems(settings, STAR) == [f"{said}, or for `similar` of 'star'"]
    assert methods.problems(settings, STAR.model_copy(update={"similar": "cross"})) == []


def test_a_concept_with_a_problem_is_not_erased(context: Context) -> None:
    with pytest.raises(ValueError, match="anchor: concept asks for anchor_concept, or for `similar` of 'Mira Vos'"):
        methods.erase(context, ASK["fixed_anchor"][0])


@pytest.mark.parametrize("name", SETTINGS)
def test_quick_settings_have_no_problems(name: str) -> None:
    assert methods.problems(SETTINGS[name], STAR) == []


FINISHED = {
    "as in the paper": adv(anchor_init=1),
    "later tokens too": adv(anchor_init=1, perturb_tokens="concept_and_later"),
    "before the text encoder": adv(anchor_init=1, perturb_space="token_embeds"),
    "from neutral": FarSettings(name="far", **QUICK, anchor_init=1),
    "from a similar concept": FarSettings(name="far", **QUICK, anchor_init=1, start="similar", start_concept="circle"),
}


@pytest.mark.parametrize("row", FINISHED)
def test_a_finished_anchor_is_the_one_that_was_searched(context: Context, row: str) -> None:
    settings: Any = FINISHED[row]
    make: Any = FarAnchor if isinstance(settings, FarSettings) else Anchor
    anchor: LearnedAnchor = make(context, settings)
    (e_adv,) = anchor.e_adv
    e_c, e_a = finished_anchor(context.base, context.concepts[0], settings, e_adv.detach().cpu())
    with torch.no_grad():
        expected = anchor.conditioning(torch.tensor([[0, 1]])).prompt_embeds[0]
    torch.testing.assert_close(e_c.prompt_embeds, context.e_c.prompt_embeds)
    torch.testing.assert_close(e_a.prompt_embeds, expected, atol=1e-5, rtol=1e-5)
    assert (e_a.prompt_embeds - e_c.prompt_embeds).norm() > 0.1


# --- far


def test_along_the_concept_and_aside_of_it() -> None:
    # d = (2, 0), m = (-1, 3): r = -2 / 4, and (0, 3) is left, 9 / 4 of |d|^2.
    m, d = torch.tensor([-1.0, 3.0]).view(1, 1, 1, 1, 2), torch.tensor([2.0, 0.0]).view(1, 1, 1, 1, 2)
    along, aside = along_and_across(m, d)
    assert (along.item(), aside.item()) == (-0.5, 2.25)


@pytest.mark.parametrize(("start", "loss"), [("own", 1 + 0.4), ("superclass", 0.4)])
def test_at_the_start_the_concept_is_one_d_from_neutral(context: Context, start: str, loss: float) -> None:
    """Where e_adv = 0, r is 1 at the concept and 0 at its neutral prompt, and nothing is aside."""
    anchor = far_anchor(context, start=start, margin=0.4)
    torch.testing.assert_close(anchor.loss(first_batch(anchor)), torch.tensor([loss]), atol=1e-4, rtol=0)


def test_drift_is_measured_from_where_the_anchor_starts(context: Context) -> None:
    """A similar concept differs from neutral in many ways; where e_adv = 0 only its share along d counts against it."""
    anchor = far_anchor(context, start="similar", start_concept="circle", margin=5.0)
    batch = first_batch(anchor)
    (loss,) = anchor.loss(batch)
    known = batch.constants
    d, m = known["concept"] - known["neutral"], known["start"] - known["neutral"]
    along, aside = along_and_across(m, d)
    torch.testing.assert_close(loss, (along + 5).mean(), atol=1e-3, rtol=1e-3)
    assert aside.mean() > 0.1


def test_the_student_is_sent_beyond_the_anchor(context: Context) -> None:
    near, far = far_anchor(context, beyond=0.0), far_anchor(context, beyond=0.5)
    batch = first_batch(near)
    eps_a, target = near.target(batch), far.target(batch)
    torch.testing.assert_close(target, eps_a - 0.5 * (batch.constants["concept"] - eps_a))


def far_anchor(context: Context, **settings: Any) -> FarAnchor:
    return FarAnchor(context, FarSettings(name="far", **QUICK | settings, anchor_init=0))


def first_batch(anchor: FarAnchor) -> Batch:
    return anchor.context.batches(anchor.settings, anchor.context.latents(anchor.settings))[0]
