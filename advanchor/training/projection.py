"""Least squares over token embeddings: what an edit of keys and values may touch, and what it must leave alone.

A delta dW changes what a prompt p means by dW E_p. A projection P turns dW into dW P. That does to the concept what dW
does, and to retained prompts as little as their difference from the concept allows:

    P = (E_c E_c^T + lambda I) (E_c E_c^T + gamma E_p E_p^T + lambda I)^-1, with P C = 0 for what is kept exactly.

Any method that trains can run behind it (`retain_weight`, gamma): P stands between the embeddings and dW while the
student learns, so that it makes up for what P takes away; what is published is dW P. It is the closed form by which
MACE (Lu et al. 2024, arXiv 2403.06135) fuses its erasures, here of one concept and within the training.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.encoding import CHUNK
from advanchor.models.profile import sampled_prompts
from advanchor.models.vocabulary import mentions
from advanchor.training.context import Context, Erasure, TrainingSettings

MAX_HELD = 2**28  # embedding values that are held in memory at once: 1 GB in float32
RANK_TOLERANCE = 1e-6  # singular values below this share of the largest count as zero: embeddings are float32


def token_embeds(tokens: Tensor) -> Tensor:
    """E (D, n) in float64 of tokens (n, D) as the readers of one group are given them, each weighted 1/n in E E^T.

    Only tokens that depend on the prompt and that no mask hides count (Base.spoken). End of text and unmasked padding
    do: they carry the concept. Of a CLIP encoder's embeddings (B, L, D) these are all tokens but the first.
    """
    own = (tokens[:, 1:].flatten(0, 1) if tokens.ndim == 3 else tokens).double()
    return own.T / len(own) ** 0.5


def gram(tokens: Tensor) -> Tensor:
    """E E^T (D, D), float64, of tokens as in token_embeds."""
    own = token_embeds(tokens)
    return own @ own.T


def gram_of(parts: Iterable[Tensor]) -> Tensor:
    """E E^T (D, D), float64, of the tokens of all parts (n, D) together; few of them are held at a time."""
    held: list[Tensor] = []
    total, count = torch.zeros((), dtype=torch.float64), 0
    for part in parts:
        held.append(part)
        if sum(own.numel() for own in held) > MAX_HELD:
            tokens = torch.cat(held).double()
            total, count, held = total + tokens.T @ tokens, count + len(tokens), []
    if not count:
        return gram(torch.cat(held))
    if held:
        tokens = torch.cat(held).double()
        total, count = total + tokens.T @ tokens, count + len(tokens)
    return total / count


def null_space(kept: Tensor) -> Tensor:
    """N (D, D - r): an orthonormal basis of all directions that are orthogonal to `kept` (D, m) of rank r."""
    left, values, _ = torch.linalg.svd(kept.double(), full_matrices=True)
    rank = int((values > RANK_TOLERANCE * values[:1].clamp_min(1e-300)).sum())  # the largest stands first
    return left[:, rank:]


def constrained_inverse(system: Tensor, kept: Tensor) -> Tensor:
    """P = N (N^T S N)^-1 N^T (D, D), so that T P solves min_dW |dW S^(1/2) - T S^(-1/2)| subject to dW kept = 0.

    system: S (D, D), positive definite; kept: (D, m). One factorisation serves every projection.
    """
    basis = null_space(kept)
    factor = torch.linalg.cholesky(basis.T @ system.double() @ basis)
    return basis @ torch.cholesky_solve(basis.T.contiguous(), factor)


def with_ridge(system: Tensor, ridge: float) -> Tensor:
    """S + lambda I with lambda = ridge * trace(S) / D."""
    return system + ridge * system.trace() / len(system) * torch.eye(len(system), dtype=system.dtype)


def projection(tokens: Tensor, retained: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """P (D, D), float32. tokens: of the concept (n, D); retained: gamma E_p E_p^T (D, D); kept: C (D, m)."""
    own = with_ridge(gram(tokens.cpu()), ridge)
    return (own @ constrained_inverse(own + retained, kept)).float()


@torch.no_grad()
def projections(context: Context, settings: TrainingSettings) -> dict[str, Tensor]:
    """P (concepts, D, D) by group of readers.

    Retained are the prompts of the base's world that do not mention the concept, and its own neutral prompts. The empty
    prompt is kept exactly.
    """
    base = context.base
    prompts = sampled_prompts(base.profile.vocabulary, settings.retain_prompts, 0, settings.retain_without)
    retained = SpokenPrompts(base, prompts)
    groups = sorted({layer.group for layer in context.delta.layers.values() if layer.group}, reverse=True)
    found: dict[str, list[Tensor]] = {group: [] for group in groups}
    for concept, rows in zip(context.concepts, context.spans, strict=True):
        others = [i for i, prompt in enumerate(prompts) if not mentioned(concept, prompt)]
        own, neutral = base.spoken(context.e_c.rows(rows)), base.spoken(context.e_n.rows(rows))
        for group, ps in found.items():
            kept = torch.cat([base.present(empty)[group] for empty in base.empties()]).cpu().T
            e_p = gram_of(chain(retained.tokens(group, others), [neutral[group].cpu()]))
            ps.append(projection(own[group], settings.retain_weight * e_p, kept, settings.ridge))
    return {group: torch.stack(ps) for group, ps in found.items()}


class SpokenPrompts:
    """What readers are given for many prompts: encoded once if memory can hold it, else whenever it is asked for."""

    def __init__(self, base: Base, prompts: Sequence[str]) -> None:
        self.base, self.prompts = base, list(prompts)
        one = sum(own.numel() for own in base.spoken(base.encode(self.prompts[:1])).values()) if prompts else 0
        self.held = list(self.encoded(range(len(prompts)))) if one * len(prompts) <= MAX_HELD else None

    def encoded(self, numbers: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        """Of each prompt, on the CPU."""
        for start in range(0, len(numbers), CHUNK):
            told = self.base.encode([self.prompts[i] for i in numbers[start : start + CHUNK]])
            for row in range(len(told)):
                own = self.base.spoken(told.rows(slice(row, row + 1)))
                yield {group: tokens.cpu() for group, tokens in own.items()}

    def tokens(self, group: str, numbers: Sequence[int]) -> Iterator[Tensor]:
        """(n, D) of each of some prompts."""
        found = (self.held[i] for i in numbers) if self.held is not None else self.encoded(numbers)
        return (own[group] for own in found)


def mentioned(concept: Concept, prompt: str) -> bool:
    """Whether a prompt names the concept or one of its attributes."""
    return any(mentions(prompt, name) for name in (concept.name, *concept.attributes))


def behind_projection(
    context: Context, settings: TrainingSettings, train: Callable[[], list[Erasure]]
) -> list[Erasure]:
    """Run `train` with dW P in place of dW. Each erasure has dW P as its delta, and the engine holds it, too."""
    if not settings.retain_weight:
        return train()
    p = projections(context, settings)
    with context.delta.projected({group: own.to(context.base.device) for group, own in p.items()}):
        erasures = train()
    for slot, erasure in enumerate(erasures):
        for name, dw in erasure.delta.items():
            if group := context.delta.group_of(name):
                erasure.delta[name] = dw @ p[group][slot]
        context.engine.load(erasure.delta, slot)
    return erasures
