"""Repairing a fusion: a concept that came back is tuned again on top of the fused model, and fused again."""

from collections.abc import Mapping

from torch import Tensor

from advanchor.fusion.statistics import statistics
from advanchor.methods import METHODS, MethodSettings
from advanchor.training import Context


def retuned(
    context: Context, settings: MethodSettings, fused: Mapping[str, Tensor], weight: float
) -> dict[str, Tensor]:
    """The contribution that replaces a concept's old one: the same erasure, with the student started at `fused`.

    The teacher stays the base, so dW_i is the fused delta and what was still missing. `weight` multiplies the
    contribution, so that the next solution gives in less where this one had to.
    """
    context.engine.reset(settings.lr)
    context.engine.load(fused)
    (erasure,) = METHODS[settings.name].erase(context, settings)
    contribution = statistics(erasure.delta, context.e_c.prompt_embeds)
    return {name: weight * tensor for name, tensor in contribution.items()}
