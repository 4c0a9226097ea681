"""What closed forms edit: keys and values of the denoiser, and how much of what is retained moves with them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from advanchor.fusion.member import Part
from advanchor.fusion.retained import Retained
from advanchor.fusion.statistics import GRAM, of_group
from advanchor.models.base import Base


def base_tensors(base: Base, named: Mapping[str, Tensor] | None, group: str = "text") -> dict[str, Tensor]:
    """W0 of the weights that totals are about; of all that anchor_edit changes (None): a group's readers."""
    wanted = set(named) if named is not None else {f"{name}.weight" for name in base.readers[group]}
    parameters = dict(base.backbone.named_parameters())
    return {name: tensor.detach().cpu() for name, tensor in parameters.items() if name in wanted}


Solve = Callable[[Mapping[str, Tensor], Tensor, Tensor, Mapping[str, Tensor]], dict[str, Tensor]]


def edited(base: Base, totals: Mapping[str, Tensor], count: int, retained: Retained, solve: Solve, whole: bool) -> Part:
    """What a closed form makes of the totals of `count` concepts, one group of readers after another.

    solve: totals of a group, R (D, D), C (D, m), W0 by name -> dW. whole: it edits all readers of a group, not only
    those that the totals name.
    """
    delta, weights = {}, {}
    facts: dict[str, float] = {"num_retained_prompts": len(retained.weights)}
    for group in base.readers:
        own = of_group(base, totals, group)
        if GRAM not in own:
            continue
        gram, w0 = retained.gram(count, group), base_tensors(base, None if whole else own, group)
        part = solve(own, gram, retained.exactly(group), w0)
        if group == "text":
            facts["retained_change"] = relative_change(part, w0, gram)
        delta, weights = delta | part, weights | w0
    return Part(weights, delta, facts=facts)


def relative_change(delta: Mapping[str, Tensor], base: Mapping[str, Tensor], retained: Tensor) -> float:
    """|dW E_p| / |W0 E_p| over all projections: how much the retained prompts' keys and values move."""

    def energy(weights: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([((w.double().cpu() @ retained) * w.double().cpu()).sum() for w in weights.values()]).sum()

    return float((energy(delta) / energy(base)).clamp_min(0).sqrt())
