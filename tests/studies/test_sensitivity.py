"""An erasure that acts in some places only."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from advanchor import models
from advanchor.artifacts import to_bytes
from advanchor.fusion.artifact import applied
from advanchor.fusion.ways.neurons import steps_after
from advanchor.methods import fixed_anchor
from advanchor.models.base import Base
from advanchor.models.conditioning import join
from advanchor.models.text import fill
from advanchor.studies.lab import Found, Size, Trial, concepts
from advanchor.studies.sensitivity import PARTS, Part, Probe, acting

PROMPTS = [fill("a red {}", "star"), fill("a {} on a white background", "star")]


@pytest.fixture
def gallery_probe() -> Probe:
    probe = Probe(models.load("pocket"), Size(quick=True))
    probe.evaluator.settings = probe.evaluator.settings.model_copy(update={"num_prompts": 12, "steps": 4})
    return probe


@pytest.fixture
def delta(base: Base) -> dict[str, Tensor]:
    names = [
        name
        for name, _ in base.backbone.named_parameters()
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    ]
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(base.backbone.get_parameter(name).shape, generator=generator) for name in names}


@pytest.fixture
def after(base: Base) -> Iterator[Tensor]:
    yield steps_after(base.concept_tokens(PROMPTS))


@torch.no_grad()
def output(base: Base, timestep: int = 500) -> Tensor:
    """For the empty prompt twice, then for the prompts."""
    noise = torch.randn(2, *base.latent_shape, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
    both = join(base.encode(["", ""]), base.encode(PROMPTS))
    return base.denoise(base.backbone, noise, torch.full((4,), timestep), both)


def test_everywhere_is_the_delta_itself(base: Base, delta: dict[str, Tensor], after: Tensor) -> None:
    before = output(base)
    with applied(base.backbone, delta):
        whole = output(base)
    with acting(base.backbone, delta, Part(), after):
        torch.testing.assert_close(output(base), whole)
    with acting(base.backbone, delta, Part(scale=0.0), after):
        assert torch.equal(output(base), before)
    assert torch.equal(output(base), before) and not torch.allclose(whole, before, atol=1e-3)


def test_timesteps_and_their_complement(base: Base, delta: dict[str, Tensor], after: Tensor) -> None:
    early = Part(timesteps=(750, 1000))
    with applied(base.backbone, delta):
        whole = output(base)
    for part, changes in ((early, False), (early.without(), True)):
        with acting(base.backbone, delta, part, after):
            assert torch.allclose(output(base, 500), whole, atol=1e-5) == changes


def test_tokens_and_their_complement_share_the_delta(base: Base, delta: dict[str, Tensor], after: Tensor) -> None:
    """What both parts change adds up to what the whole does; the empty prompt always changes whole."""
    name = next(iter(delta))
    layer = base.backbone.get_submodule(name.removesuffix(".weight"))
    embeds = join(base.encode(["", ""]), base.encode(PROMPTS)).prompt_embeds
    plain, parts = layer(embeds), []
    last = PARTS["tokens"]["the concept's last"]
    for part in (last, last.without()):
        with acting(base.backbone, {name: delta[name]}, part, after):
            parts.append(layer(embeds) - plain)
    whole = embeds @ delta[name].T
    torch.testing.assert_close(parts[0][2:] + parts[1][2:], whole[2:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(parts[0][:2], whole[:2], atol=1e-4, rtol=1e-4)
    assert (parts[0][2:].abs().sum(-1) > 0).sum(1).tolist() == [1, 1]  # one token of each prompt


def test_an_exam_that_asks_the_same_twice_is_examined_once(gallery_probe: Probe) -> None:
    """People's exams repeat their prompts, whose pictures are made once: the tokens must be theirs."""
    (concept,) = concepts(gallery_probe.base, "identity", ("mira morwin",))
    names = gallery_probe.base.backbone.state_dict()
    nothing = {name: torch.zeros_like(w) for name, w in names.items() if name.endswith("attn2.to_v.weight")}
    found = Found(Trial("", concept, fixed_anchor.Settings(), 0), {}, lambda: to_bytes(nothing, {}))
    assert gallery_probe.ua(found, PARTS["tokens"]["the concept's last"]) < 0.5
