"""Numbers that are infinite or none at all end an erasure, with the step and the setting that is the likely cause."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Report = Callable[[str, int, int, float], None]
RATES = ("lr", "anchor_lr")


class NotFiniteError(ArithmeticError):
    """A loss or a delta with a value that is not finite. The same settings give it again, so nobody need try again."""


def watched(report: Report) -> Report:
    """A report that first looks at the loss it is given. Raises NotFiniteError."""

    def look(phase: str, step: int, total: int, loss: float) -> None:
        if not math.isfinite(loss):
            before = " before the first step of the optimizer" if step == 1 else ""
            raise NotFiniteError(f"{phase} step {step} of {total}: the loss is {loss}{before}")
        report(phase, step, total, loss)

    return look


def check_finite(delta: "Mapping[str, Tensor]", *anchor: "Tensor | None") -> None:
    """Raises NotFiniteError for a delta or an anchor with a value that is not finite."""
    for name, tensor in (*(("the anchor", own) for own in anchor), *delta.items()):
        if tensor is not None and not tensor.isfinite().all():
            raise NotFiniteError(f"{name} has values that are not finite")


def explained(error: NotFiniteError, settings: Any) -> NotFiniteError:
    """The error with the settings that are its likely cause, and their values."""
    rates = [f"method.{name} {getattr(settings, name):g}" for name in RATES if hasattr(settings, name)]
    if "before the first step" in str(error):  # the student was still the teacher
        rates = [rate for rate in rates if "anchor" in rate]
    causes = " or ".join((*rates, "the precision (load the model and train in float32)"))
    return NotFiniteError(f"{error}; likely cause: {causes}")
