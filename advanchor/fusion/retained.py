"""What a fusion must leave alone, as the matrices that its ways of fusing solve with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor.batch.retain import Retain, weighted_prompts
from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.encoding import CHUNK, meanings, neighbours
from advanchor.settings import Section
from advanchor.training.projection import MAX_HELD, token_embeds


class RetainSettings(Section):
    """How retained prompts weigh beside the concepts."""

    retain_weight: float = Field(
        default=1.0, ge=0, description="gamma: weight of all retained prompts together relative to all concepts"
    )
    ridge: float = Field(default=1e-5, gt=0, description="lambda, as a share of the mean eigenvalue of the Gram matrix")
    neighbours: int = Field(default=8, ge=0, description="retained prompts nearest to each concept that weigh more")
    neighbour_weight: float = Field(default=2.0, ge=1, description="how many times as much they weigh")
    empty: Literal["exact", "weight"] = Field(
        default="exact", description="the empty prompt is kept exactly, or by a weight"
    )
    empty_weight: float = Field(default=1.0, ge=0, description="that weight, relative to all concepts")


@dataclass
class Retained:
    """What a fusion must leave alone. Prompts are encoded when a way of fusing first asks for them."""

    base: Base
    retain: Retain
    erased: Sequence[Concept]
    settings: RetainSettings

    @cached_property
    def weights(self) -> dict[str, float]:
        """Prompt -> weight; those nearest to a concept by text embedding weigh `neighbour_weight` times as much."""
        weights = weighted_prompts(self.retain, self.erased)
        scales = torch.tensor(list(weights.values()), dtype=torch.float64)
        if weights:
            near = neighbours(self.base, meanings(self.base, list(weights)), self.erased, self.settings.neighbours)
            scales[near] *= self.settings.neighbour_weight
        return dict(zip(weights, scales.tolist(), strict=True))

    def exactly(self, group: str = "text") -> Tensor:
        """C (D, m): what a group of readers must map as before. With empty: exact, all embeddings of the empty prompt.

        Else its first token alone, where that is the same in every prompt.
        """
        base, empties = self.base, self.base.empties()
        if self.settings.empty == "exact":
            return torch.cat([base.present(empty)[group] for empty in empties]).cpu().T
        read, told = base.present(empties[0])[group], empties[0]
        silent = base.read(told)[group][0][:1] if group == "text" and not base.speaking(told)[0, 0] else read[:0]
        return silent.cpu().T

    def gram(self, count: int, group: str = "text") -> Tensor:
        """R = gamma n sum_p w_p E_p E_p^T / sum_p w_p, (D, D), float64, of what a group of readers is given.

        count: n, of the concepts whose sums R is added to.
        """
        width = self.base.present(self.base.empties()[0])[group].shape[-1]
        total = torch.zeros(width, width, dtype=torch.float64)
        if self.weights:
            total += self.settings.retain_weight * count * weighted_gram(self.base, self.weights, group)
        if self.settings.empty == "weight":
            tokens = token_embeds(self.base.spoken(self.base.empties()[0])[group].cpu())
            total += self.settings.empty_weight * count * tokens @ tokens.T
        return total


@torch.no_grad()
def weighted_gram(base: Base, weights: Mapping[str, float], group: str) -> Tensor:
    """sum_p w_p E_p E_p^T / sum_p w_p (D, D), float64, some prompts at a time."""
    scales = torch.tensor(list(weights.values()), dtype=torch.float64)
    shares, prompts = (scales / scales.sum()).sqrt().float(), list(weights)
    held: list[Tensor] = []
    total = torch.zeros((), dtype=torch.float64)

    def folded() -> Tensor:
        tokens = torch.cat(held)
        return total + tokens.T @ tokens

    for start in range(0, len(prompts), CHUNK):
        told = base.encode(prompts[start : start + CHUNK])
        for row in range(len(told)):
            own = base.spoken(told.rows(slice(row, row + 1)))[group].cpu()
            held.append((own * shares[start + row]).double() / len(own) ** 0.5)
        if sum(own.numel() for own in held) > MAX_HELD:
            total, held = folded(), []
    return folded() if held else total
