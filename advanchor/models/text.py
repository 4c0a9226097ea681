"""Prompts, where a concept stands in them, and what is added there."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from advanchor.concepts import CONCEPT_SLOT


class PromptError(ValueError):
    """A prompt that cannot carry its concept: the span is cut off, or glued to a neighbouring word."""


@dataclass(frozen=True)
class Prompt:
    """A prompt and the character spans at which the concept stands in it."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()


def fill(template: str, concept: str) -> Prompt:
    """Put a concept's name into every slot of a template."""
    text, spans = "", []
    for i, part in enumerate(template.split(CONCEPT_SLOT)):
        if i:
            spans.append((len(text), len(text) + len(concept)))
            text += concept
        text += part
    return Prompt(text, tuple(spans))


def kind_of(character: str) -> str:
    """ "letter", "digit" or "": two neighbours of one kind belong to one word."""
    return "letter" if character.isalpha() else "digit" if character.isdigit() else ""


def later_tokens(positions: Tensor) -> Tensor:
    """Extend `positions` (B, L) to the tokens after the concept, which carry it in a causal text encoder.

    They all get the next free row: num_concept_tokens.
    """
    num_concept_tokens = int(positions.max()) + 1
    seen = (positions >= 0).cumsum(1) > 0
    return positions.masked_fill(seen & (positions < 0), num_concept_tokens)


def pad_to_prompt(e_adv: Tensor, positions: Tensor) -> Tensor:
    """pad(e_adv): row j of e_adv (rows, D) wherever `positions` (B, L) is j, zero where it is -1; (B, L, D)."""
    return F.pad(e_adv, (0, 0, 1, 0))[positions + 1]
