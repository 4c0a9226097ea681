"""UCE against its formula, term by term."""

import pytest
import torch
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.methods.uce import Settings, aligned_positions, joint_edit
from advanchor.models.base import Base

STAR = Concept(name="star", kind="object", templates=("a red {}", "a {}"), neutral=("a red shape", "a shape"))
STRIPED = Concept(name="striped", kind="style", templates=("a {} shape",), neutral=("a shape",))


def weights(base: Base) -> dict[str, Tensor]:
    return {k: v for k, v in base.backbone.named_parameters() if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}


def at(base: Base, prompt: str, position: int) -> Tensor:
    """(D, 1)"""
    with torch.no_grad():
        return base.encode([prompt]).prompt_embeds[0, position, :, None].double()


def test_the_concept_and_its_anchor_stand_equally_far_from_the_end(base: Base) -> None:
    """0 is begin of text: "a red star" has star at 3, "a red shape" shape at 3; "a striped shape" against "a shape".

    One row a template, one column an encoder.
    """
    assert aligned_positions(base, STAR) == ([[3], [2]], [[3], [2]])
    assert aligned_positions(base, STRIPED) == ([[2]], [[1]])


@pytest.mark.parametrize("retain", [(), ("a blue circle",)])
def test_two_concepts_in_one_edit(base: Base, retain: tuple[str, ...]) -> None:
    """W = (l W0 + sum v c^T + 3 sum W0 c_p c_p^T) (l I + sum c c^T + 3 sum c_p c_p^T)^-1, with v = W0 c_anchor."""
    pairs = [
        (at(base, "a red star", 3), at(base, "a red shape", 3)),
        (at(base, "a star", 2), at(base, "a shape", 2)),
        (at(base, "a striped shape", 2), at(base, "a shape", 1)),
    ]
    kept = [at(base, prompt, 3) for prompt in retain]
    found = joint_edit(base, [STAR, STRIPED], Settings(retain=retain, retain_weight=3, ridge=0.7), weights(base))
    assert found.keys() == weights(base).keys()
    for name, weight in weights(base).items():
        w0 = weight.detach().double()
        left = 0.7 * w0 + sum(w0 @ c_a @ c.T for c, c_a in pairs) + 3 * sum(w0 @ c @ c.T for c in kept)
        right = 0.7 * torch.eye(len(w0.T)) + sum(c @ c.T for c, _ in pairs) + 3 * sum(c @ c.T for c in kept)
        torch.testing.assert_close(found[name].double(), left @ torch.linalg.inv(right) - w0, atol=1e-5, rtol=1e-4)


def test_a_small_lambda_gives_the_concept_its_anchors_keys_and_values(base: Base) -> None:
    found = joint_edit(base, [STRIPED], Settings(ridge=1e-9), weights(base))
    c, c_anchor = at(base, "a striped shape", 2), at(base, "a shape", 1)
    for name, weight in weights(base).items():
        w0 = weight.detach().double()
        torch.testing.assert_close((w0 + found[name]) @ c, w0 @ c_anchor, atol=1e-4, rtol=1e-4)
        assert (w0 @ c - w0 @ c_anchor).norm() > 1e-2


def test_later_tokens_are_edited_too_if_asked(base: Base) -> None:
    """Padding after the concept, position 9, moves to the neutral prompt's padding one position before."""
    found = joint_edit(base, [STRIPED], Settings(ridge=1e-9, tokens="last_and_later"), weights(base))
    name, weight = next(iter(weights(base).items()))
    w0, pad = weight.detach().double(), at(base, "a striped shape", 9)
    torch.testing.assert_close((w0 + found[name]) @ pad, w0 @ at(base, "a shape", 8), atol=1e-3, rtol=1e-3)
