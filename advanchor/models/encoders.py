"""A base's text encoders: how each is given a prompt, and where a prompt's tokens stand in the prompt embeddings."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.messages import quoted
from advanchor.models.text import Prompt, PromptError, kind_of

Keep = slice | list[int]


@dataclass(frozen=True)
class TextEncoder:
    """One of a base's text encoders, and the place that its tokens have in the prompt embeddings (B, L, D)."""

    part: str  # the pipeline's name for it: "text_encoder", "text_encoder_2"
    module: Any
    tokenizer: Any
    length: int  # tokens that it is given, padding and template included
    rows: slice | None = field(default_factory=lambda: slice(None))  # of L; None: it gives pooled embeddings only
    columns: slice = field(default_factory=lambda: slice(None))  # of D
    keep: Keep = field(default_factory=lambda: slice(None))  # which of its tokens are passed on
    causal: bool = True  # later tokens carry what came before; else every token carries every other
    prefix: int = 1  # tokens passed on that are the same in front of every prompt: begin of text
    before: str = ""  # what a template puts before a prompt, as text
    after: str = ""
    lower: bool = False  # prompts are lower-cased and stripped first

    @property
    def embedding(self) -> nn.Module:
        """The layer that embeds tokens. T5's get_input_embeddings() is another one, with the same weight."""
        stack = getattr(self.module, "encoder", None)
        return getattr(stack, "embed_tokens", None) or self.module.get_input_embeddings()

    @property
    def token_width(self) -> int:
        return self.embedding.weight.shape[1]  # type: ignore[union-attr, index, return-value]

    @property
    def is_templated(self) -> bool:
        return bool(self.before or self.after)

    def prepared(self, prompt: Prompt) -> Prompt:
        """The text that is tokenized, and where the concept stands in it."""
        text, start = prompt.text, 0
        if self.lower:
            start = len(text) - len(text.lstrip())
        moved = []
        for begin, end in prompt.spans:
            first, last = (max(0, len(self.cased(text[:at])) - start) for at in (begin, end))
            moved.append((first + len(self.before), last + len(self.before)))
        return Prompt(
            self.before + self.cased(text[start:].rstrip() if self.lower else text) + self.after, tuple(moved)
        )

    def cased(self, text: str) -> str:
        return text.lower() if self.lower else text

    def tokens(self, texts: Sequence[str]) -> Any:
        """input_ids and attention_mask (B, length), padded and cut, on the module's device."""
        batch = self.tokenizer(
            [self.prepared(Prompt(text)).text for text in texts],
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
            add_special_tokens=not self.chat,
        )
        return batch.to(self.module.device)

    @property
    def chat(self) -> bool:
        """Whether the template brings the special tokens itself."""
        return "<|im_start|>" in self.before or "[INST]" in self.before

    def positions(self, prompts: Sequence[Prompt]) -> list[list[list[int]]]:
        """By prompt and place of the concept in it: which of the `length` tokens are the concept's.

        Raises PromptError if a concept is truncated away or shares a token with, or is glued to, another word.
        """
        overhead = len(self.ids(Prompt(self.before + self.after)).input_ids)
        return [self.found(self.prepared(prompt), overhead) for prompt in prompts]

    def ids(self, prompt: Prompt) -> Any:
        return self.tokenizer(prompt.text, return_offsets_mapping=True, add_special_tokens=not self.chat)

    def found(self, prompt: Prompt, overhead: int) -> list[list[int]]:
        encoding = self.ids(prompt)
        offsets, length = encoding.offset_mapping, len(encoding.input_ids)
        ends = 0 if self.chat else length - 1 - max((i for i, (a, b) in enumerate(offsets) if b > a), default=0)
        padding = max(self.length - length, 0) if self.tokenizer.padding_side == "left" else 0
        places = []
        for start, end in prompt.spans:
            inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
            check(prompt, (start, end), offsets, inside)
            if inside[-1] >= self.length - ends:
                raise PromptError(
                    f"prompt {quoted(prompt.text)}: the concept {quoted(prompt.text[start:end])} ends at token "
                    f"{inside[-1]}, but only {self.length - overhead} fit; shorten the template"
                )
            places.append([i + padding for i in inside])
        return places

    def last(self, text: str) -> int:
        """Where, among the tokens passed on, a prompt's last one stands; of an empty prompt, what stands there."""
        prompt = self.prepared(Prompt(text))
        encoding = self.ids(prompt)
        start, end = len(self.before), len(prompt.text) - len(self.after)
        inside = [i for i, (a, b) in enumerate(encoding.offset_mapping) if a < end and b > start and b > a]
        left = self.tokenizer.padding_side == "left"
        padding = max(self.length - len(encoding.input_ids), 0) if left else 0
        return self.passed_on(padding + max(inside)) if inside else self.prefix

    def passed_on(self, index: int) -> int:
        """The place, among the tokens that are passed on, of one of the `length` tokens; the last one if it is cut."""
        places = self.keep if isinstance(self.keep, list) else range(self.length)[self.keep]
        return places.index(index) if index in places else len(places) - 1

    @property
    def passed(self) -> int:
        """How many tokens are passed on."""
        return len(self.keep) if isinstance(self.keep, list) else len(range(self.length)[self.keep])


def check(prompt: Prompt, span: tuple[int, int], offsets: Sequence[tuple[int, int]], inside: list[int]) -> None:
    """Raises PromptError if the tokens `inside` are not the concept's alone."""
    text, (start, end) = prompt.text, span
    if not inside:
        raise PromptError(f"prompt {quoted(text)}: {quoted(text[start:end])} has no tokens")
    covered = text[offsets[inside[0]][0] : offsets[inside[-1]][1]].strip()
    if covered != text[start:end].strip():
        raise PromptError(f"prompt {quoted(text)}: the concept shares a token with the word {quoted(covered)}")
    borders = (text[max(start - 1, 0) : start + 1] if start else "", text[end - 1 : end + 1])
    if any(len(pair) == 2 and kind_of(pair[0]) == kind_of(pair[1]) != "" for pair in borders):
        raise PromptError(f"prompt {quoted(text)}: the concept {quoted(covered)} is glued to another word")


def table(encoder: TextEncoder, prompts: Sequence[Prompt]) -> Tensor:
    """Which of the concept's tokens stands where: (B, length), j at its j-th, -1 elsewhere.

    Every occurrence counts anew, and so that the concept's last token is always the same j: a byte-pair encoding may
    cut a name into more tokens after a space than at the start of a prompt.
    """
    found = encoder.positions(prompts)
    most = max((len(place) for places in found for place in places), default=0)
    numbers = torch.full((len(prompts), encoder.length), -1)
    for row, places in enumerate(found):
        for place in places:
            numbers[row, place] = torch.arange(most - len(place), most)
    return numbers


def deviation(encoder: TextEncoder) -> float:
    return encoder.embedding.weight.float().std().item()  # type: ignore[union-attr, operator, return-value]


def numbered(tables: Iterable[Tensor]) -> list[Tensor]:
    """Tables of rows, renumbered so that each one's rows come after those of the one before."""
    first, moved = 0, []
    for own in tables:
        moved.append(own.where(own < 0, own + first))
        first = int(max(first, int(moved[-1].max()) + 1))
    return moved


@contextmanager
def shifted(embedding: nn.Module, shift: Tensor | None) -> Iterator[None]:
    """Add `shift` to what an embedding layer returns, inside this block."""
    if shift is None:
        yield
        return
    handle = embedding.register_forward_hook(lambda _, __, output: output + shift.to(output.dtype))  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def templated(tokenizer: Any, chat: Any, **settings: Any) -> tuple[str, str]:
    """What a chat template puts before and after the content "\0" of a chat."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, **settings)
    before, _, after = text.partition("\0")
    return before, after
