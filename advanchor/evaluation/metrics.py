"""Distances between sets of pictures, and how sure a mean is: pure functions of features and answers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from advanchor.evaluation.exam import Answers, Question, share


def alignment(questions: Sequence[Question], answers: Answers) -> float | None:
    """Share of pictures in which everything that the prompt names is recognised."""
    whole = [
        all(answer[attribute] == value for attribute, value in question.expected.items())
        for question, answer in zip(questions, answers, strict=True)
    ]
    return share(whole)


def diversity(features: Tensor, copies: int) -> float | None:
    """Mean distance between two pictures of the same prompt; features (prompts * copies, F), prompt by prompt.

    None where there is only one picture of each.
    """
    if copies < 2:
        return None
    grouped = features.double().unflatten(0, (-1, copies))
    distances = torch.cdist(grouped, grouped)  # (prompts, copies, copies), zero on the diagonal
    return (distances.sum((1, 2)) / (copies * (copies - 1))).mean().item()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features (N, F), each taken as a normal distribution (Heusel et al. 2017).

    |m_a - m_b|^2 + tr( C_a + C_b - 2 (C_a C_b)^(1/2) ); depends on N, so compare equal numbers of pictures only.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root
    return max(0.0, distance.item())


def bootstrap_interval(values: Sequence[float], *, level: float = 0.95, draws: int = 4000) -> tuple[float, float]:
    """The interval that holds the mean of `level` of the samples drawn again from `values` (Efron 1979)."""
    sample = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    means = sample[torch.randint(len(sample), (draws, len(sample)), generator=generator)].mean(1)
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high
