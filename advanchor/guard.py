"""Least squares over token embeddings: what an edit of keys and values may touch, and what it must leave alone.

A delta dW changes what a prompt p means by dW E_p. A guard P turns dW into dW P, which does to the concept what dW does
and to retained prompts as little as the two can be told apart:

    P = E_c E_c^T (E_c E_c^T + gamma E_p E_p^T + lambda I)^-1, with P C = 0 for what is kept exactly.
"""

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-6  # singular values below this share of the largest count as zero: embeddings are float32


def token_embeds(prompt_embeds: Tensor) -> Tensor:
    """E (D, n) in float64: (B, L, D) embeddings at all positions but the first, each weighted 1/n in E E^T.

    The first position (begin of text) is the same for every prompt. End of text and padding carry the concept.
    """
    tokens = prompt_embeds[:, 1:].flatten(0, 1).double()
    return tokens.T / len(tokens) ** 0.5


def gram(prompt_embeds: Tensor) -> Tensor:
    """E E^T (D, D), float64."""
    tokens = token_embeds(prompt_embeds)
    return tokens @ tokens.T


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


def guard(prompt_embeds: Tensor, retained: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """P (D, D), float32. prompt_embeds: of the concept (B, L, D); retained: gamma E_p E_p^T (D, D); kept: C (D, m)."""
    own = with_ridge(gram(prompt_embeds.cpu()), ridge)
    return (own @ constrained_inverse(own + retained, kept)).float()
