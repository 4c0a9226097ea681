"""Perturbations of a concept's tokens, by hand, and soft prompts on the tiny text encoder."""

import torch

from advanchor.models.base import Base
from advanchor.models.text import Prompt, fill
from advanchor.training.perturbation import Perturbation, SoftPrompt

STAR = [fill("a red {}", "star"), fill("a {}", "star")]
MIRA = [fill("a portrait of {}", "Mira Vos")]


def test_a_row_for_each_token_wherever_it_stands() -> None:
    """Two concepts of two rows and one: their tables lie one below the other."""
    positions = [torch.tensor([[-1, 0, 1], [0, 1, -1]]), torch.tensor([[-1, -1, 0]])]
    rows = [torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0]])]
    perturbation = Perturbation(positions, rows, lr=0.1)
    assert perturbation.shift(perturbation.positions).squeeze(-1).tolist() == [[0, 1, 2], [1, 2, 0], [0, 0, 4]]


def test_a_step_moves_those_whose_loss_is_above_zero() -> None:
    """Adam's first step is lr against the sign of the gradient."""
    rows = [torch.tensor([[1.0]]), torch.tensor([[1.0]])]
    perturbation = Perturbation([torch.zeros(1, 1).long()] * 2, rows, lr=0.25)
    values = torch.stack([3 * perturbation.rows[0].sum(), -3 * perturbation.rows[1].sum()])
    assert perturbation.step(values, [0, 1]) == [0]
    torch.testing.assert_close(torch.cat(perturbation.rows).detach(), torch.tensor([[0.75], [1.0]]))


def test_a_soft_prompt_starts_at_the_prompt_itself_or_as_large_as_its_steps(base: Base) -> None:
    with torch.no_grad():
        same = SoftPrompt(base, [STAR], 0.3).encode(STAR).prompt_embeds
        torch.testing.assert_close(same, base.encode(STAR).prompt_embeds)
    drawn = SoftPrompt(base, [STAR, MIRA], 0.3, [torch.Generator().manual_seed(i) for i in range(2)])
    size = 0.3 * base.encoders[0].module.get_input_embeddings().weight.std().item()
    tokens = len(base.encoders[0].tokenizer("Mira Vos").input_ids) - 2
    assert [len(rows) for rows in drawn.rows] == [1 + 1, tokens + 1]  # and one for all later tokens
    expected = size * torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.rows[0].detach(), expected)
    assert drawn.lr == size


@torch.no_grad()
def test_a_soft_prompt_of_one_concept_fits_other_prompts_with_it(base: Base) -> None:
    soft_prompt = SoftPrompt(base, [STAR], 1.0, [torch.Generator().manual_seed(0)])
    by_number = soft_prompt.rows_of(torch.tensor([[1, 0]])).prompt_embeds
    torch.testing.assert_close(by_number[0], soft_prompt.encode([STAR[1], STAR[0]]).prompt_embeds)
    other = Prompt("a blue star", ((7, 11),))
    moved = (soft_prompt.encode([other]).prompt_embeds != base.encode([other]).prompt_embeds).any(-1)[0]
    assert moved.tolist() == [False] * 3 + [True] * (len(moved) - 3)  # begin of text, a, blue; star and what follows


@torch.no_grad()
def test_concepts_that_share_a_table_stay_strangers(base: Base) -> None:
    def draws() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(i) for i in range(2)]

    both, alone = SoftPrompt(base, [STAR, MIRA], 1.0, draws()), SoftPrompt(base, [MIRA], 1.0, draws()[1:])
    torch.testing.assert_close(
        both.rows_of(torch.tensor([2])).prompt_embeds, alone.rows_of(torch.tensor([0])).prompt_embeds
    )
