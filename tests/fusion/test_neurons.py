"""Anchors as neurons: what they say in a concept's place, what they leave alone, and that stock encoders take them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from advanchor import models
from advanchor.artifacts import ArtifactError, delta_to_bytes
from advanchor.artifacts.record import read
from advanchor.batch.presets import PRESETS
from advanchor.concepts import Concept
from advanchor.evaluation.exam import hits
from advanchor.evaluation.generate import generate, numbered_seeds
from advanchor.evaluation.settings import SamplingSettings
from advanchor.fusion import neurons as encoder
from advanchor.fusion.applied_neurons import put_neurons
from advanchor.fusion.statistics import GRAM, accumulate
from advanchor.fusion.ways import neurons
from advanchor.models.base import Base
from advanchor.models.profile import sampled_prompts
from advanchor.pocket.profile import POCKET_PROMPTS
from advanchor.pocket.scorer import PocketScorer, person_question

REACH, RIDGE, THRESHOLD = 8, 1e-5, 0.5
RETAINED = ("a blue shape", "a striped shape", "a red circle", "a portrait of a person", "a painting by someone", "")


def one(name: str, template: str, neutral: str) -> Concept:
    return Concept(name=name, kind="object", templates=(template,), neutral=(neutral,))


STAR = one("star", "a red {}", "a red circle")


def solved(
    base: Base, concepts: list[Concept], retained: tuple[str, ...] = RETAINED, reach: int = REACH, **scales: float
) -> dict[str, Tensor]:
    """Neurons that lead every concept to its neutral prompt."""
    totals: dict[str, Tensor] = {}
    for concept in concepts:
        goal = neurons.neutral_embeds(base, concept)
        accumulate(totals, neurons.neuron_statistics(base, concept, goal, reach))
    gram = (len(concepts) + neurons.PRIOR) * neurons.retained_gram(base, dict.fromkeys(retained, 1.0))
    return neurons.solve_neurons(base, totals, gram, RIDGE, THRESHOLD, scales)


def embeds(base: Base, *prompts: str) -> Tensor:
    with torch.no_grad():
        return base.encode(prompts).prompt_embeds


def test_tokens_are_counted_from_the_concepts_last_one() -> None:
    positions = torch.tensor([[-1, 0, 1, -1, -1, -1], [-1, -1, 0, 1, 0, 1]])  # twice in the second prompt
    assert neurons.steps_after(positions).tolist() == [[-1, -1, 0, 1, 2, 3], [-1, -1, -1, 0, 1, 0]]


def test_the_hidden_state_before_a_layer_norm_is_found_again() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(8)
    nn.init.normal_(norm.weight, 1, 0.2)
    nn.init.normal_(norm.bias)
    wanted, like = norm(torch.randn(5, 8)).detach(), 3 * torch.randn(5, 8) + 1
    found = neurons.before_norm(norm.requires_grad_(False), wanted, like)
    torch.testing.assert_close(norm(found), wanted, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.mean(1), like.mean(1))


def test_neutral_prompts_are_moved_to_where_the_concept_stood(base: Base) -> None:
    """ "starlight star": a token more than "a shape" before the end."""
    concept = one("starlight star", "a {} striped", "a shape striped")
    found = neurons.neutral_embeds(base, concept)
    ours = embeds(base, "a starlight star striped", "a shape striped")
    assert torch.equal(found[0, 3:-1], ours[1, 2:-2])
    assert not torch.allclose(found[0, 3], ours[0, 3])


def test_a_concepts_prompt_says_what_it_should_and_retained_ones_what_they_did(base: Base) -> None:
    """At the concept's own token; the ones after it all look alike to a text encoder that has learned nothing."""
    before = embeds(base, "a red star", *RETAINED)
    with encoder.grown(base.encoders[0].module, solved(base, [STAR], reach=0)):
        after = embeds(base, "a red star", *RETAINED)
    torch.testing.assert_close(after[0, 3], before[3, 3], atol=1e-3, rtol=1e-3)  # before[3]: "a red circle"
    assert not torch.allclose(before[0, 3], before[3, 3], atol=0.1)
    torch.testing.assert_close(after[1:], before[1:], atol=1e-2, rtol=0)
    assert torch.equal(embeds(base, "a red star", *RETAINED), before)
    assert base.encoders[0].module.config.intermediate_size == 64


def test_gates_open_between_their_edges(base: Base) -> None:
    """At the concept's own x the score is 1; half-way up the ramp the hidden state has gone half of the way."""
    found = solved(base, [STAR])
    up, bias, down = (found[name] for name in encoder.mlp_names(base.encoders[0].module).values())
    x, _ = encoder.hidden_states(base, ["a red star"])
    half = len(up) // 2
    scores = (x[0] @ up[:half].T + bias[:half]) / neurons.STEEP + THRESHOLD
    torch.testing.assert_close(scores[3 : 3 + half].diagonal(), torch.ones(half), atol=1e-3, rtol=0)
    assert up.shape == (2 * (REACH + 1), 32) and down.shape == (32, 2 * (REACH + 1))
    open_ = base.encoders[0].module.get_submodule(encoder.clip_parts(base.encoders[0].module)[0])[-1].mlp.activation_fn
    for score, wanted in ((0.0, 0.0), (THRESHOLD + neurons.RAMP / 2, 0.5), (1.0, 1.0), (1.5, 1.0)):
        edges = torch.tensor([score - THRESHOLD, score - THRESHOLD - neurons.RAMP])
        gates = open_(neurons.STEEP * edges)
        assert float((gates[0] - gates[1]) / (neurons.STEEP * neurons.RAMP)) == pytest.approx(wanted, abs=0.02)


def test_a_stronger_concepts_gates_open_earlier_and_no_others_do(base: Base) -> None:
    circle = one("circle", "a blue {}", "a blue shape")
    plain, strong = solved(base, [STAR, circle]), solved(base, [STAR, circle], circle=2.0)
    name = encoder.mlp_names(base.encoders[0].module)["fc1.bias"]
    earlier = ((strong[name] - plain[name]) / neurons.STEEP).view(2, 2, REACH + 1)  # edges, concepts, steps
    torch.testing.assert_close(earlier[:, 0], torch.full((2, REACH + 1), THRESHOLD / 2), atol=1e-4, rtol=0)
    assert not earlier[:, 1].any()  # sorted by name: the circle comes first


def test_a_concept_that_leaves_takes_all_of_its_own_along(base: Base) -> None:
    circle = one("circle", "a blue {}", "a blue shape")
    parts = [neurons.neuron_statistics(base, c, neurons.neutral_embeds(base, c), REACH) for c in (STAR, circle)]
    totals: dict[str, Tensor] = {}
    for part in parts:
        accumulate(totals, part)
    accumulate(totals, parts[1], sign=-1)
    assert totals.keys() == parts[0].keys()
    torch.testing.assert_close(totals[GRAM], parts[0][GRAM])


def test_neurons_of_another_text_encoder_are_refused(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "neurons.safetensors"
    tensors = encoder.mlp_tensors(base.encoders[0].module)
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    path.write_bytes(delta_to_bytes(solved(base, [STAR]), other, {"base": "another"}))
    with pytest.raises(ArtifactError, match="was made from another base"):
        put_neurons(base.encoders[0].module, read(path), 1.0)
    assert base.encoders[0].module.config.intermediate_size == 64
    before, found = embeds(base, "a red star"), solved(base, [STAR])
    for seed, scale in enumerate((0.5, -0.5)):  # further files of the same base may follow
        path.write_bytes(delta_to_bytes(found, tensors, {"seed": seed}))
        put_neurons(base.encoders[0].module, read(path), scale)
    torch.testing.assert_close(embeds(base, "a red star"), before, atol=1e-4, rtol=1e-4)


def test_a_text_encoder_of_another_kind_is_named(base: Base) -> None:
    with pytest.raises(encoder.TextEncoderError, match="Linear has no layers of CLIP's text encoder"):
        encoder.clip_parts(nn.Linear(2, 2))


@pytest.mark.slow
def test_erased_people_are_gone_and_people_nobody_was_told_of_are_not() -> None:
    """Twelve names erased at once, twelve others that no prompt mentioned."""
    base, scorer = models.load("pocket"), PocketScorer()
    people = [concept.with_prompts(POCKET_PROMPTS) for concept in PRESETS["gallery/identities"]()]
    erased, hidden = people[:12], people[12:24]
    retained = sampled_prompts("gallery/captions", 500, 0, without=[concept.name for concept in people[:24]])
    questions = [person_question(i, concept.name) for i, concept in enumerate((*erased, *hidden))]
    prompts = [question.prompt for question in questions]
    with encoder.grown(base.encoders[0].module, solved(base, erased, tuple(retained))):
        pictures = generate(base, prompts, numbered_seeds(prompts, 0), SamplingSettings(solver="dpm", steps=10))
    seen = hits(questions, scorer.read(pictures), only="identity")
    assert sum(seen[:12]) <= 1 and sum(seen[12:]) >= 11
