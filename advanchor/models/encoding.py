"""Many prompts at once: their embeddings, and which of them are near to a concept."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.text import Prompt, fill

CHUNK = 256  # prompts encoded at a time


@torch.no_grad()
def means(base: Base, prompts: Sequence[str | Prompt]) -> Tensor:
    """(len(prompts), D) on the CPU: a prompt's mean embedding over the tokens that speak."""
    found = []
    for start in range(0, len(prompts), CHUNK):
        told = base.encode(prompts[start : start + CHUNK])
        speaks = base.speaking(told).unsqueeze(-1)
        found.append(((told.prompt_embeds * speaks).sum(1) / speaks.sum(1)).cpu())
    return torch.cat(found)


def meanings(base: Base, prompts: Sequence[str | Prompt]) -> Tensor:
    """(len(prompts), D): means of length one."""
    return F.normalize(means(base, prompts), dim=1)


def neighbours(base: Base, known: Tensor, erased: Sequence[Concept], count: int) -> Tensor:
    """Which of the prompts with meanings `known` are among the `count` nearest to any concept, by cosine."""
    if not count or not erased:
        return torch.empty(0, dtype=torch.long)
    named = meanings(base, [fill(concept.templates[0], concept.name) for concept in erased])
    similarity = named @ known.T
    return similarity.topk(min(count, len(known)), dim=1).indices.unique()
