"""The losses of AdvAnchor (Zhao et al. 2024, arXiv 2501.00054).

All arguments are predictions (concepts, B, C, h, w): noise, or the velocity of a flow; adv1 wants noise. Every loss is
one number per concept, (concepts,), so that concepts that share a forward do not affect each other.
"""

from torch import Tensor


def mean(values: Tensor) -> Tensor:
    """Over everything but the concepts: (concepts, ...) -> (concepts,)."""
    return values.flatten(1).mean(1)


def adv1(eps_anchor: Tensor, eps_concept: Tensor) -> Tensor:
    """L_adv1 = mean( eps0(x_t, e_a) * eps0(x_t, e_c) )."""
    return mean(eps_anchor * eps_concept)


def adv2(eps_anchor: Tensor, eps_concept: Tensor, eps_neutral: Tensor) -> Tensor:
    """L_adv2 = mean( (eps0(x_t, e_a) - eps0(x_t, e_n)) * (eps0(x_t, e_c) - eps0(x_t, e_n)) )."""
    return mean((eps_anchor - eps_neutral) * (eps_concept - eps_neutral))


def mse(eps: Tensor, wanted: Tensor) -> Tensor:
    """MSE( eps, wanted ): of a student's prediction and its target, which is the teacher's for a retained prompt."""
    return mean((eps - wanted).square())
