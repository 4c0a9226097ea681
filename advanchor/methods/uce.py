"""Unified Concept Editing (Gandikota et al. 2024, arXiv 2308.14761): the keys and values of a concept become others'.

    W = (lambda W0 + sum_i v_i c_i^T + sum_p W0 c_p c_p^T) (lambda I + sum_i c_i c_i^T + sum_p c_p c_p^T)^-1

with v_i = W0 c_anchor_i. Closed form: no pictures, no steps, no seed. c_i are embeddings of the concept's last token
and, if asked, of the tokens after it; c_anchor_i those of the neutral prompt, as many tokens before its end.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.text import fill
from advanchor.training import Context, Erasure, erasures

VERSION = 1
PACKABLE = True


class Settings(BaseModel):
    """The authors' defaults: erase and preserve weights 1, lambda 0.5, the last token alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    lr: ClassVar[float] = 0.0  # nothing is trained

    name: Literal["uce"] = "uce"
    trained_weights: Literal["cross_attention_kv"] = Field(
        default="cross_attention_kv", description="the closed form is about keys and values"
    )
    tokens: Literal["last", "last_and_later"] = Field(
        default="last", description="which of a concept's embeddings are edited"
    )
    ridge: float = Field(default=0.5, gt=0, description="lambda: how strongly the weights hold on to what they were")
    preserve: tuple[str, ...] = Field(default=(), description="prompts whose keys and values are to stay")
    preserve_weight: float = Field(
        default=1.0, ge=0, description="weight of each of them (the authors' preserve_scale)"
    )


def embeds_from(base: Base, prompts: Sequence[str], starts: Sequence[int], later: bool) -> list[Tensor]:
    """Embeddings (n, D), float64, of every prompt from position starts[i] on; of that one alone if not `later`."""
    embeds = base.encode(prompts).prompt_embeds.double().cpu()
    return [row[start:] if later else row[start : start + 1] for row, start in zip(embeds, starts, strict=True)]


def last_positions(base: Base, prompts: Sequence[str]) -> list[int]:
    """The position of each prompt's last token; of the empty prompt, that of end of text."""
    return [max(len(base.tokenizer(prompt).input_ids) - 2, 1) for prompt in prompts]


def aligned_positions(base: Base, concept: Concept) -> tuple[list[int], list[int]]:
    """Where the concept's last token stands in each template, and as far from the end, what stands in the neutral."""
    prompts = [fill(template, concept.name) for template in concept.templates]
    positions = base.concept_tokens(prompts)
    own = [int((row == positions.max()).nonzero().max()) for row in positions]
    ends = last_positions(base, [prompt.text for prompt in prompts])
    neutral_ends = last_positions(base, concept.neutral)
    anchors = [max(end_n - (end - at), 1) for at, end, end_n in zip(own, ends, neutral_ends, strict=True)]
    return own, anchors


@torch.no_grad()
def edit_sums(base: Base, concepts: Sequence[Concept], settings: Settings) -> tuple[Tensor, Tensor]:
    """sum_i (c_anchor_i - c_i) c_i^T and sum_i c_i c_i^T + weight * sum_p c_p c_p^T, each (D, D) in float64."""
    later, preserve = settings.tokens == "last_and_later", settings.preserve
    width = base.encode([""]).prompt_embeds.shape[-1]
    shift, system = torch.zeros(2, width, width, dtype=torch.float64)
    for concept in concepts:
        own, anchors = aligned_positions(base, concept)
        prompts = [fill(template, concept.name).text for template in concept.templates]
        pairs = zip(
            embeds_from(base, prompts, own, later), embeds_from(base, concept.neutral, anchors, later), strict=True
        )
        for c, c_anchor in pairs:
            n = min(len(c), len(c_anchor))
            shift += (c_anchor[:n] - c[:n]).T @ c[:n]
            system += c[:n].T @ c[:n]
    for start in range(0, len(preserve), 256):
        chunk = preserve[start : start + 256]
        for c in embeds_from(base, chunk, last_positions(base, chunk), later):
            system += settings.preserve_weight * c.T @ c
    return shift, system


def joint_edit(
    base: Base, concepts: Sequence[Concept], settings: Settings, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """dW = W - W0, float32, of all concepts in one edit; weights: W0 by name."""
    shift, system = edit_sums(base, concepts, settings)
    system = system + settings.ridge * torch.eye(len(system), dtype=torch.float64)
    edit = torch.linalg.solve(system, shift.T).T  # shift system^-1, as system is symmetric
    return {name: (weight.double().cpu() @ edit).float() for name, weight in weights.items()}


def erase(context: Context, settings: Settings) -> list[Erasure]:
    for slot, concept in enumerate(context.concepts):
        context.engine.load(joint_edit(context.base, [concept], settings, context.delta.base_tensors()), slot)
    return erasures(context, settings.trained_weights)
