"""Contexts: sampled prompts with a slot, which neurons learn to find a concept in."""

import random

import pytest
import torch

from advanchor import models
from advanchor.concepts import KINDS, Concept, default_prompts
from advanchor.fusion import neurons
from advanchor.fusion.statistics import accumulate
from advanchor.models.base import Base
from advanchor.retained import (
    CONTEXTS,
    EXAM_WORDS,
    fits,
    in_contexts,
    mentions,
    sampled_contexts,
    sampled_prompts,
    words,
)
from advanchor.text import CONCEPT_SLOT, fill

STAR = Concept(name="star", kind="object", templates=("a {}", "a red {}"), neutral=("a shape", "a red shape"))


@pytest.mark.parametrize("vocabulary", CONTEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_contexts_and_their_neutral_prompts_differ_in_the_concept_alone(vocabulary: str, kind: str) -> None:
    rng = random.Random(0)
    for _ in range(200):
        template, neutral = CONTEXTS[vocabulary](kind, rng)  # type: ignore[arg-type]
        assert CONCEPT_SLOT not in neutral and "  " not in template + neutral
        if CONCEPT_SLOT not in template:
            continue  # a caption may leave the concept out
        common = [word for word in words(template) if word in words(neutral)]
        assert len(words(template)) - len(common) <= 5  # at most "in the style of", or "with a" and the article


def test_contexts_depend_on_the_concept_alone_and_are_no_exam(base: Base) -> None:
    found = sampled_contexts("pocket", STAR, 20)
    assert found == sampled_contexts("pocket", STAR, 20) and len(set(found)) == 20
    assert not any(mentions(template, word) for template, _ in found for word in EXAM_WORDS)
    widened = in_contexts(base, STAR, 20)
    assert widened.templates[:2] == STAR.templates and len(widened.templates) == len(widened.neutral) > 2
    assert not fits(base, "a " * 20 + CONCEPT_SLOT, "star")


def test_names_are_left_with_their_templates(base: Base) -> None:
    name = Concept(name="mira", kind="identity", templates=("{}",), neutral=("a person",))
    assert in_contexts(base, name, 20) is name


def test_neurons_made_in_contexts_find_a_concept_at_more_positions_of_unseen_prompts() -> None:
    """The share of positions, the concept's own and later ones, at which some neuron speaks."""
    base = models.load("pocket")
    star = Concept(name="star", kind="object").with_prompts(default_prompts("pocket"))
    unseen = [fill(f"a picture of a {style} {colour} {{}} on a sand background", "star")
              for style in ("dotted", "checkered") for colour in ("green", "cyan", "pink")]  # fmt: skip
    retained = sampled_prompts("gallery/captions", 300, 0, without=["star"])
    gram = (1 + neurons.PRIOR) * neurons.retained_gram(base, dict.fromkeys(retained, 1.0))
    own = neurons.steps_after(base.concept_tokens(unseen)) >= 0
    moved = {}
    for count in (0, 40):
        concept, totals = in_contexts(base, star, count), {}
        accumulate(totals, neurons.neuron_statistics(base, concept, neurons.neutral_embeds(base, concept), 8))
        with torch.no_grad():
            before = base.encode(unseen).prompt_embeds[own]
            with neurons.grown(base.text_encoder, neurons.solve(base, totals, gram, 1e-5, 0.57)):
                after = base.encode(unseen).prompt_embeds[own]
        moved[count] = float(((after - before).norm(dim=1) > 1).double().mean())
    assert moved[40] > moved[0] + 0.1, moved
