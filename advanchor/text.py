"""Prompts, their embeddings, and where a concept stands in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

CONCEPT_SLOT = "{}"  # stands for the concept in a template


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


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Token ids (B, L), padded and truncated to the tokenizer's length L."""
    batch = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return batch.input_ids


def concept_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> Tensor:
    """Which of the concept's tokens stands where: (B, L), j at its j-th token, -1 elsewhere.

    The span comes from the tokenizer's own offsets, so a name of several BPE tokens is covered whole, and every
    occurrence counts from zero again. Raises PromptError if a span is truncated away or shares a token with
    another word, or if the concept has a different number of tokens in different places.
    """
    length = tokenizer.model_max_length
    table = torch.full((len(prompts), length), -1)
    counts = set()
    for row, prompt in enumerate(prompts):
        encoding = tokenizer(prompt.text, return_offsets_mapping=True, add_special_tokens=True)
        offsets, words = encoding.offset_mapping, encoding.word_ids()
        for start, end in prompt.spans:
            found = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
            if not found:
                raise PromptError(f"prompt {prompt.text!r}: {prompt.text[start:end]!r} has no tokens")
            if found[-1] >= length - 1:
                raise PromptError(
                    f"prompt {prompt.text!r}: the concept {prompt.text[start:end]!r} ends at token {found[-1]}, "
                    f"but only {length - 2} fit; shorten the template"
                )
            inside = prompt.text[offsets[found[0]][0] : offsets[found[-1]][1]].strip()
            if inside != prompt.text[start:end].strip():
                raise PromptError(f"prompt {prompt.text!r}: the concept shares a token with the word {inside!r}")
            if words[found[0]] == words[found[0] - 1] or words[found[-1]] == words[found[-1] + 1]:
                raise PromptError(f"prompt {prompt.text!r}: the concept {inside!r} is glued to another word")
            counts.add(len(found))
            table[row, found] = torch.arange(len(found))
    if len(counts) > 1:
        raise PromptError(f"the concept has {sorted(counts)} tokens in different templates; it must always be the same")
    return table


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
