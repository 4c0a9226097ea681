"""Unified Concept Editing (Gandikota et al. 2024, arXiv 2308.14761): the keys and values of a concept become others'.

    W = (lambda W0 + sum_i v_i c_i^T + sum_p W0 c_p c_p^T) (lambda I + sum_i c_i c_i^T + sum_p c_p c_p^T)^-1

with v_i = W0 c_anchor_i. Closed form: no pictures, no steps, no seed. c_i are embeddings of the concept's last token
and, if asked, of the tokens after it; c_anchor_i those of the neutral prompt, as many tokens before its end.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.text import fill
from advanchor.settings import Section
from advanchor.training.context import Context, Erasure
from advanchor.training.cost import Cost
from advanchor.training.loop import erasures

VERSION = 1
PACKABLE = True


class Settings(Section):
    """The authors' defaults: erase and retain weights 1, lambda 0.5, the last token alone."""

    lr: ClassVar[float] = 0.0  # nothing is trained

    name: Literal["uce"] = "uce"
    trained_weights: Literal["cross_attention_kv", "readers", "pooled"] = Field(
        default="cross_attention_kv", description="the closed form is about what reads the prompt"
    )
    tokens: Literal["last", "last_and_later"] = Field(
        default="last", description="which of a concept's embeddings are edited"
    )
    ridge: float = Field(default=0.5, gt=0, description="lambda: how strongly the weights hold on to what they were")
    retain: tuple[str, ...] = Field(default=(), description="prompts whose keys and values are to stay")
    retain_weight: float = Field(default=1.0, ge=0, description="weight of each of them (the authors' preserve_scale)")


Places = list[list[int]]  # by prompt: a position within each segment of its embeddings


def embeds_from(base: Base, prompts: Sequence[str], starts: Places, later: bool) -> list[list[Tensor]]:
    """By prompt and segment: what the text's readers are given, (n, D) in float64, from its start in `starts`.

    later: to the segment's end, without what no prompt changes; else the start's own row alone.
    """
    conditioning = base.encode(prompts)
    read, speaks = base.read(conditioning)["text"].double().cpu(), base.speaking(conditioning).cpu()
    lengths = [encoder.passed for encoder in base.segments()]
    found = []
    for row, speak, own in zip(read.split(1), speaks.split(1), starts, strict=True):
        parts = (whole[0, : sum(lengths)].split(lengths) for whole in (row, speak))
        segments = zip(*parts, own, strict=True)
        found.append([e[at:][s[at:]] if later else e[at : at + 1] for e, s, at in segments])
    return found


def last_positions(base: Base, prompts: Sequence[str]) -> Places:
    """The position of each prompt's last token; of the empty prompt, that of end of text."""
    return [[encoder.last(prompt) for encoder in base.segments()] for prompt in prompts]


def aligned_positions(base: Base, concept: Concept) -> tuple[Places, Places]:
    """Where the concept's last token stands in each template, and the place as far from the neutral prompt's end."""
    prompts = [fill(template, concept.name) for template in concept.templates]
    lengths = [encoder.passed for encoder in base.segments()]
    tables = base.concept_tokens(prompts)[:, : sum(lengths)].split(lengths, 1)
    own = [[int((table[i] == table.max()).nonzero().max()) for table in tables] for i in range(len(prompts))]
    ends = last_positions(base, [prompt.text for prompt in prompts])
    neutral_ends = last_positions(base, concept.neutral)
    firsts = [encoder.prefix for encoder in base.segments()]
    anchors = [
        [max(end_n - (end - at), first) for at, end, end_n, first in zip(*places, firsts, strict=True)]
        for places in zip(own, ends, neutral_ends, strict=True)
    ]
    return own, anchors


def pooled_pairs(base: Base, concept: Concept) -> tuple[Tensor, Tensor]:
    """What pooled readers are given for the concept and for its neutral prompts, (templates, D) in float64."""
    prompts = [fill(template, concept.name) for template in concept.templates]
    own, neutral = (base.read(base.encode(p))["pooled"].flatten(0, 1).double() for p in (prompts, concept.neutral))
    return own.cpu(), neutral.cpu()


@torch.no_grad()
def edit_sums(base: Base, concepts: Sequence[Concept], settings: Settings) -> dict[str, tuple[Tensor, Tensor]]:
    """By group of readers: sum_i (c_anchor_i - c_i) c_i^T and sum_i c_i c_i^T + weight * sum_p c_p c_p^T.

    Each is (D, D) in float64.
    """
    later, retain = settings.tokens == "last_and_later", settings.retain
    sums = {
        group: tuple(torch.zeros(2, own.shape[-1], own.shape[-1], dtype=torch.float64))
        for group, own in base.read(base.encode([""])).items()
    }
    shift, system = sums["text"]
    for concept in concepts:
        for c, c_anchor in text_pairs(base, concept, later):
            n = min(len(c), len(c_anchor))
            shift += (c_anchor[:n] - c[:n]).T @ c[:n]
            system += c[:n].T @ c[:n]
        if "pooled" in sums:
            c, c_anchor = pooled_pairs(base, concept)
            sums["pooled"][0].add_((c_anchor - c).T @ c)
            sums["pooled"][1].add_(c.T @ c)
    for start in range(0, len(retain), 256):
        chunk = retain[start : start + 256]
        for segments in embeds_from(base, chunk, last_positions(base, chunk), later):
            for c in segments:
                system += settings.retain_weight * c.T @ c
        if "pooled" in sums:
            own = base.read(base.encode(chunk))["pooled"].flatten(0, 1).double().cpu()
            sums["pooled"][1].add_(settings.retain_weight * own.T @ own)
    return sums  # type: ignore[return-value]


def text_pairs(base: Base, concept: Concept, later: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """By template and segment: what the text's readers are given for the concept, and in its place for the neutral."""
    own, anchors = aligned_positions(base, concept)
    prompts = [fill(template, concept.name).text for template in concept.templates]
    found = embeds_from(base, prompts, own, later), embeds_from(base, concept.neutral, anchors, later)
    for ours, theirs in zip(*found, strict=True):
        yield from zip(ours, theirs, strict=True)


def joint_edit(
    base: Base, concepts: Sequence[Concept], settings: Settings, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """dW = W - W0, float32, of all concepts in one edit; weights: W0 by name."""
    edits: dict[str, Tensor] = {}
    for group, (shift, system) in edit_sums(base, concepts, settings).items():
        held = system + settings.ridge * torch.eye(len(system), dtype=torch.float64)
        edits[group] = torch.linalg.solve(held, shift.T).T  # shift held^-1, as it is symmetric
    groups = base.groups(weights)
    return {name: (weight.double().cpu() @ edits[groups[name]]).float() for name, weight in weights.items()}


def erase(context: Context, settings: Settings) -> list[Erasure]:
    for slot, concept in enumerate(context.concepts):
        context.engine.load(joint_edit(context.base, [concept], settings, context.delta.base_tensors()), slot)
    return erasures(context, settings.trained_weights)


def cost(settings: Settings, concept: Concept) -> Cost:
    return Cost()  # a few prompts are encoded


def problems(settings: Settings, concept: Concept) -> list[str]:
    return []
