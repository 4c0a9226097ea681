"""Universal perturbations of a concept's tokens, and soft prompts, which are perturbations before the text encoder.

A perturbation has few rows: row j is added to the concept's j-th token wherever it stands, in every prompt. It may have
a vector for the pooled embedding of every prompt as well.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.text import Prompt, pad_to_prompt


class Perturbation:
    """The rows (rows, D) of each of some concepts, and one Adam without weight decay for all of them."""

    def __init__(
        self,
        positions: Sequence[Tensor],
        starts: Sequence[Tensor],
        lr: float,
        pooled: Sequence[Tensor] = (),
        pooled_lrs: Sequence[float] = (),
    ) -> None:
        """positions: which of its rows each concept's prompts have where, (prompts, L), -1 for none.

        starts: each concept's rows as they are at first, on the device of the positions. pooled: its vector
        (D_pooled,), where it has one, with a learning rate of its own.
        """
        self.rows = [start.requires_grad_() for start in starts]
        self.pooled = [start.requires_grad_() for start in pooled]
        self.pooled_lrs = list(pooled_lrs)
        self.positions = positions_in_table(positions, [len(rows) for rows in self.rows])  # (all prompts, L)
        self.lr = lr
        self.reset_optimizer()

    def reset_optimizer(self) -> None:
        own = ({"params": [v], "lr": lr} for v, lr in zip(self.pooled, self.pooled_lrs, strict=True))
        self.optimizer = torch.optim.Adam([{"params": self.rows}, *own], lr=self.lr)

    def shift(self, positions: Tensor) -> Tensor:
        """What is added (..., L, D) where some of `self.positions` are (..., L)."""
        return pad_to_prompt(torch.cat(self.rows), positions)

    def step(
        self, loss: Tensor, concepts: Sequence[int], mean: Callable[[Tensor], Tensor] = lambda own: own
    ) -> list[int]:
        """One step on the rows of each concept, down its loss (concepts,); returns the concepts that took it.

        Those whose loss is already at or below 0 take none. mean: over the ranks, of losses and of gradients.
        """
        values = mean(loss.detach()).tolist()
        above = [number for number, value in zip(concepts, values, strict=True) if value > 0]
        if above:
            self.optimizer.zero_grad()  # without a gradient Adam leaves rows and their moments alone
            moved = [part[number] for part in (self.rows, self.pooled) if part for number in above]
            for one, gradient in zip(moved, torch.autograd.grad(loss.sum(), moved), strict=True):
                one.grad = mean(gradient)
            self.optimizer.step()
        return above


class SoftPrompt(Perturbation):
    """e_s: a vector for each token of the concept and one for all tokens after it, added before the text encoder.

    It is found on a model that no longer draws the concept, by MSE( eps(x_t, e_s), noise ) on pictures of the concept
    (after UnlearnDiffAtk, Zhang et al. 2024, arXiv 2310.11868).
    """

    def __init__(
        self,
        base: Base,
        prompts: Sequence[Sequence[Prompt]],
        lr: float,
        draws: Sequence[torch.Generator] | None = None,
    ) -> None:
        """prompts: each concept's own. lr: in standard deviations of the token embeddings.

        draws: what each concept's vectors are drawn from at first, as large as lr; None: they start at 0.
        """
        self.base, self.prompts = base, [prompt for own in prompts for prompt in own]
        size = lr * base.token_deviation
        positions = [base.token_carriers(base.token_positions(own)) for own in prompts]
        shapes = [(int(own.max()) + 1, base.token_width) for own in positions]
        if draws is None:
            starts = [torch.zeros(shape) for shape in shapes]
        else:
            starts = [size * torch.randn(shape, generator=g) for shape, g in zip(shapes, draws, strict=True)]
        super().__init__(positions, [start.to(base.device) for start in starts], size)

    def rows_of(self, numbers: Tensor) -> Conditioning:
        """e_s of the prompts that it was made for, by their numbers in one list of all."""
        prompts = [self.prompts[i] for i in numbers.flatten().tolist()]
        e_s = self.encode(prompts, self.positions[numbers].flatten(0, -2))
        return e_s.rows(torch.arange(len(prompts)).view_as(numbers))

    def encode(self, prompts: Sequence[Prompt], positions: Tensor | None = None) -> Conditioning:
        """e_s (B, L, D) of prompts with these positions; without them, of any prompts with its only concept."""
        if positions is None:
            positions = self.base.token_carriers(self.base.token_positions(prompts))
        return self.base.encode(prompts, token_shift=self.shift(positions))


def positions_in_table(own: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """Each concept's positions (its prompts, L) as positions in the table of all rows, one concept below the other."""
    firsts = accumulate(rows[:-1], initial=0)
    return torch.cat([p.where(p < 0, p + first) for p, first in zip(own, firsts, strict=True)])
