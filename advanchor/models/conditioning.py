"""What a denoiser is told beside x_t and t."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Rows of prompt embeddings and, for some architectures, more per row.

    `added` may hold "pooled" (B, D_pooled), float: one vector per prompt; "mask" (B, L), long: 1 where a token is read;
    "time_ids" (B, 6), float: SDXL's sizes and crops. What is the same for all rows stays inside of `Base.denoise`.
    """

    prompt_embeds: Tensor  # (B, L, D), or (concepts, B, L, D) where `rows` was asked for (concepts, B)
    added: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def rows(self, index: Tensor | slice | int) -> "Conditioning":
        return Conditioning(self.prompt_embeds[index], {key: value[index] for key, value in self.added.items()})

    def with_embeds(self, prompt_embeds: Tensor) -> "Conditioning":
        return Conditioning(prompt_embeds, self.added)

    def plus_pooled(self, shift: Tensor) -> "Conditioning":
        """The same with something added to the pooled embeddings (..., D_pooled)."""
        return Conditioning(self.prompt_embeds, self.added | {"pooled": self.added["pooled"] + shift})

    def with_pooled(self, other: "Conditioning") -> "Conditioning":
        """The same prompt embeddings with another's pooled ones, where there are any."""
        if "pooled" not in self.added:
            return self
        return Conditioning(self.prompt_embeds, self.added | {"pooled": other.added["pooled"]})


def join(*parts: Conditioning) -> Conditioning:
    """One Conditioning with the rows of all parts, so that one forward serves them all."""
    added = {key: torch.cat([part.added[key] for part in parts]) for key in parts[0].added}
    return Conditioning(torch.cat([part.prompt_embeds for part in parts]), added)


def stack(*parts: Conditioning) -> Conditioning:
    """Parts of (concepts, B, ...) as flat rows, concept by concept, and part by part within each."""
    added = {key: torch.stack([part.added[key] for part in parts], 1).flatten(0, 2) for key in parts[0].added}
    return Conditioning(torch.stack([part.prompt_embeds for part in parts], 1).flatten(0, 2), added)
