"""How dear it is to represent an anchor at the readers: the change of weights that it takes, and what it cannot reach.

A reader W says of the concept what it said of the anchor if dW E_c = W (E_a - E_c). With tokens E (n, D) as rows and
their shift S = E_a - E_c, ridge regression gives dW = W M with

    M^T = E^T (E E^T + lambda I)^-1 S,     |M|^2 = sum_i w_i / (w_i + lambda)^2 |u_i^T S|^2,
    what is left of S: sum_i (lambda / (w_i + lambda))^2 |u_i^T S|^2,     E E^T = sum_i w_i u_i u_i^T.

Where neighbouring tokens are nearly equal, as an unmasked T5 makes them, M must be large to tell them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.text import Prompt

READS_TEXT = ("cross_attention_kv", "readers")  # trained_weights with readers of prompt embeddings
MOST_TOKENS = 2048  # of the first prompts: more take long and say the same
DEAR = 1 / 3  # share of the shift that is not reached, from which on an anchor counts as dear


@dataclass(frozen=True)
class Price:
    """What an anchor costs at the readers of prompt embeddings, with a ridge."""

    norm: float  # |M|, Frobenius
    unreached: float  # |E M^T - S| / |S|

    @property
    def is_dear(self) -> bool:
        return self.unreached > DEAR


def price(tokens: Tensor, shift: Tensor, ridge: float) -> Price:
    """tokens, shift: (n, D) each; ridge: lambda as a share of the mean eigenvalue of E^T E. No shift costs nothing."""
    e, s = tokens.double(), shift.double()
    if not s.any():
        return Price(0.0, 0.0)
    values, vectors = torch.linalg.eigh(e @ e.T)
    values, along = values.clamp_min(0), (vectors.T @ s).square().sum(1)
    held = ridge * values.sum() / e.shape[1]
    norm = (values / (values + held).square() * along).sum().sqrt()
    left = ((held / (values + held)).square() * along).sum().sqrt()
    return Price(norm.item(), (left / s.norm()).item())


def first_tokens(base: Base, told: Conditioning) -> tuple[Conditioning, Tensor]:
    """The first prompts of some, so many that about MOST_TOKENS speak; and which of their tokens do (B, L)."""
    speaks = base.speaking(told)
    most = int((speaks.sum(1).cumsum(0) <= MOST_TOKENS).sum().clamp_min(1))
    return told.rows(slice(most)), speaks[:most]


@torch.no_grad()
def price_of_anchor(base: Base, e_c: Conditioning, e_a: Conditioning, ridge: float) -> Price:
    """Of one concept's anchor: e_c, e_a (templates, L, D)."""
    own, speaks = first_tokens(base, e_c)
    read, read_a = (base.read(told)["text"][speaks].cpu() for told in (own, e_a.rows(slice(len(own)))))
    return price(read, read_a - read, ridge)


@torch.no_grad()
def typical_price(base: Base, prompts: Sequence[Prompt], ridge: float, *, later: bool = True) -> Price:
    """Before there is an anchor: of a shift of the concept's tokens as large as the embeddings are; drawn from seed 0.

    later: also of the tokens that carry it.
    """
    e_c = base.encode(prompts)
    positions = base.concept_tokens(prompts)
    positions = base.carriers(positions) if later else positions
    embeds = e_c.prompt_embeds
    rows = torch.randn(int(positions.max()) + 2, embeds.shape[-1], generator=torch.Generator().manual_seed(0))
    rows[0] = 0
    moved = rows.to(embeds)[positions + 1] * embeds[base.speaking(e_c)].std()
    return price_of_anchor(base, e_c, e_c.with_embeds(embeds + moved), ridge)


def dear(name: str, found: Price) -> str:
    """What to tell of a concept whose anchor is dear."""
    return (
        f"{name!r}: an anchor is dear at the weights that read its prompts: a change of norm {found.norm:,.0f} reaches "
        f"{1 - found.unreached:.0%} of it; trained_weights: text_kv is the other choice where the base has it"
    )
