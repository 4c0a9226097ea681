"""Where a concept stands in its prompts, and what is added there."""

import pytest
import torch
from torch import Tensor

from advanchor.models.base import Base
from advanchor.models.text import Prompt, PromptError, fill, later_tokens, pad_to_prompt


def rows(base: Base, concept: str, *templates: str) -> list[list[int]]:
    """The table of concept tokens, without the padding's -1 at the end of every row."""
    prompts = [fill(template, concept) for template in templates]
    table = base.concept_tokens(prompts).tolist()
    lengths = [len(base.encoders[0].tokenizer(prompt.text).input_ids) for prompt in prompts]
    assert all(set(row[n:]) <= {-1} for row, n in zip(table, lengths, strict=True))
    return [row[:n] for row, n in zip(table, lengths, strict=True)]


def test_fill_says_where_the_concept_stands() -> None:
    assert fill("a {} on a {}", "star") == Prompt("a star on a star", ((2, 6), (12, 16)))


def test_one_token(base: Base) -> None:
    assert rows(base, "star", "a {}") == [[-1, -1, 0, -1]]  # begin, a, star, end


def test_a_name_of_several_tokens_is_covered_whole(base: Base) -> None:
    assert (
        len(base.encoders[0].tokenizer("caravaggio").input_ids) - 2 == 10
    )  # c a r a v a g g i o: no word of the corpus
    assert rows(base, "caravaggio", "a {} star") == [[-1, -1, *range(10), -1, -1]]


def test_a_name_of_several_words(base: Base) -> None:
    # a c / d c: two words and a sign between them
    assert rows(base, "AC/DC", "a {}") == [[-1, -1, 0, 1, 2, 3, 4, -1]]


def test_a_name_of_one_character_and_four_bytes(base: Base) -> None:
    assert rows(base, "\N{GRINNING FACE}", "a {}") == [[-1, -1, 0, 1, 2, 3, -1]]


def test_every_occurrence_counts_from_zero(base: Base) -> None:
    assert rows(base, "red star", "{} , a {}") == [[-1, 0, 1, -1, -1, 0, 1, -1]]


def test_a_row_belongs_to_the_token_wherever_it_stands(base: Base) -> None:
    assert rows(base, "red star", "{}", "a portrait of {}") == [[-1, 0, 1, -1], [-1, -1, -1, -1, 0, 1, -1]]


def test_the_words_own_s_is_a_word_apart(base: Base) -> None:
    assert rows(base, "star", "a {}'s shape") == [[-1, -1, 0, -1, -1, -1, -1]]  # begin a star ' s shape end


def test_a_span_that_is_cut_off_names_its_prompt(base: Base) -> None:
    template = "a red star " * 4 + "{}"  # twelve tokens before the concept; fourteen fit
    assert rows(base, "star", template)[0][13] == 0
    with pytest.raises(PromptError, match=r"'a red star .* red star of'.*only 14 fit"):
        base.concept_tokens([fill(template, "red star of")])


def test_a_concept_that_is_no_text_to_the_tokenizer(base: Base) -> None:
    with pytest.raises(PromptError, match="has no tokens"):
        base.concept_tokens([fill("a {} star", " ")])


@pytest.mark.parametrize(
    ("template", "concept"),
    [
        ("a {}light", "star"),  # "starlight" is one token
        ("a {}ish", "star"),  # sta r i s h: a border of tokens where the concept ends, but star alone is another token
        ("a {}ish", "xyz"),  # x y z i s h
        ("a red{}", "xyz"),  # the same in front
    ],
)
def test_a_concept_glued_to_a_word_names_its_prompt(base: Base, template: str, concept: str) -> None:
    with pytest.raises(PromptError, match=fill(template, concept).text):
        base.concept_tokens([fill(template, concept)])


def test_later_tokens_share_the_next_row() -> None:
    positions = torch.tensor([[-1, 0, 1, -1, -1], [-1, -1, 0, 1, -1], [-1, 0, -1, 0, -1]])
    assert later_tokens(positions).tolist() == [[-1, 0, 1, 2, 2], [-1, -1, 0, 1, 2], [-1, 0, 2, 0, 2]]


E_ADV = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
POSITIONS = torch.tensor([[-1, 0, 1, -1], [-1, -1, 0, -1]])


def test_pad_to_prompt() -> None:
    expected = [[[0, 0], [1, 2], [3, 4], [0, 0]], [[0, 0], [0, 0], [1, 2], [0, 0]]]
    assert pad_to_prompt(E_ADV, POSITIONS).tolist() == expected


def test_the_gradient_reaches_each_row_from_its_tokens_alone() -> None:
    e_adv = E_ADV.clone().requires_grad_()
    weights = torch.tensor([[1.0, 10, 100, 1000], [2, 20, 200, 2000]])[..., None]  # one per prompt and position
    (weights * pad_to_prompt(e_adv, POSITIONS)).sum().backward()
    # row 0 stands at (0, 1) and (1, 2): 10 + 200; row 1 at (0, 2): 100
    assert e_adv.grad is not None
    assert e_adv.grad.tolist() == [[210, 210], [100, 100]]


def test_token_shift_moves_a_token_and_what_follows(base: Base) -> None:
    def shifted(shift: Tensor) -> Tensor:
        return base.encode(["a red star"], token_shift=shift).prompt_embeds

    plain = base.encode(["a red star"]).prompt_embeds
    shift = torch.zeros_like(plain)
    assert torch.equal(shifted(shift), plain)
    shift[0, 2] = torch.linspace(-1, 1, shift.shape[-1])
    changed = (shifted(shift) != plain).any(dim=-1)
    assert changed[0].tolist() == [False] * 2 + [True] * 14
    assert torch.equal(base.encode(["a red star"]).prompt_embeds, plain)
