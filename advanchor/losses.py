"""The losses of AdvAnchor (Zhao et al. 2024, arXiv 2501.00054). All arguments are noise predictions (B, C, h, w)."""

from torch import Tensor
from torch.nn.functional import mse_loss


def adv1(eps_anchor: Tensor, eps_concept: Tensor) -> Tensor:
    """L_adv1 = mean( eps0(x_t, e_a) * eps0(x_t, e_c) )."""
    return (eps_anchor * eps_concept).mean()


def adv2(eps_anchor: Tensor, eps_concept: Tensor, eps_neutral: Tensor) -> Tensor:
    """L_adv2 = mean( (eps0(x_t, e_a) - eps0(x_t, e_n)) * (eps0(x_t, e_c) - eps0(x_t, e_n)) )."""
    return ((eps_anchor - eps_neutral) * (eps_concept - eps_neutral)).mean()


def erase(eps_student: Tensor, eps_target: Tensor) -> Tensor:
    """MSE( eps(x_t, e_c), target ): the student's concept becomes the teacher's target."""
    return mse_loss(eps_student, eps_target)


def preserve(eps_student: Tensor, eps_teacher: Tensor) -> Tensor:
    """MSE( eps(x_t, e_n), eps0(x_t, e_n) ): on the neutral prompt the student stays the teacher."""
    return mse_loss(eps_student, eps_teacher)
