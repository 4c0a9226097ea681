"""What one erasure contributes to a fusion, and the sums of contributions.

    gram_i   = E_i E_i^T            (D, D)      the same for every projection
    target_i = dW_i E_i E_i^T       (d_out, D)  one per projection            (closed_form)
    shift_i  = (E_a,i - E_i) E_i^T  (D, D)      the same for every projection (anchor_edit)

A contribution is a dictionary of tensors: "gram" with the targets by the names of the projections' weights, or with
"shift". Contributions add up, so a concept is taken out by subtracting what it brought in. What is named "own/..."
belongs to one concept (ways/neurons.py): it comes and goes as a whole.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.training.projection import gram, token_embeds

GRAM, SHIFT, OWN = "gram", "shift", "own/"
POOLED = "pooled/"  # in front of the gram and the shift of pooled readers, which read another thing than the text's
BLOCK = 2**15  # elements added at a time: what is converted to float64 for it stays in the processor's cache
FUSABLE = ("cross_attention_kv", "readers", "pooled")  # trained_weights that read the prompt alone: closed forms' need


def statistics(delta: Mapping[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """A contribution to `closed_form`, float32: the deltas of one group of readers over what they are given (n, D)."""
    e_e = gram(tokens.cpu())
    return {GRAM: e_e.float()} | {name: (dw.double() @ e_e).float() for name, dw in delta.items()}


def anchor_statistics(tokens: Tensor, anchor_tokens: Tensor) -> dict[str, Tensor]:
    """An anchor's contribution to `anchor_edit`, float64: both (n, D), the same prompts position by position."""
    e, e_a = token_embeds(tokens.cpu()), token_embeds(anchor_tokens.cpu())
    return {GRAM: e @ e.T, SHIFT: (e_a - e) @ e.T}


def erasure_statistics(base: Base, delta: Mapping[str, Tensor], e_c: Conditioning) -> dict[str, Tensor]:
    """An erasure's contribution to `closed_form`, group by group; e_c: its prompts."""
    groups, spoken, found = base.groups(delta), base.spoken(e_c), {}
    for group in dict.fromkeys(groups.values()):
        own = {name: dw for name, dw in delta.items() if groups[name] == group}
        found |= named(group, statistics(own, spoken[group]))
    return found


def anchor_contribution(base: Base, e_c: Conditioning, e_a: Conditioning) -> dict[str, Tensor]:
    """An anchor's contribution to `anchor_edit`, group by group, at the positions that speak in e_c."""
    speaks, read, read_a = base.speaking(e_c), base.read(e_c), base.read(e_a)
    found = anchor_statistics(read["text"][speaks], read_a["text"][speaks])
    if "pooled" in read:
        found |= named("pooled", anchor_statistics(read["pooled"].flatten(0, 1), read_a["pooled"].flatten(0, 1)))
    return found


def named(group: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A group's contribution under the names that it has among those of other groups."""
    front = POOLED if group == "pooled" else ""
    return {f"{front}{name}" if name in (GRAM, SHIFT) else name: tensor for name, tensor in own.items()}


def of_group(base: Base, totals: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    """What `named` put together, for one group; empty if it has no part in the totals."""
    front = POOLED if group == "pooled" else ""
    sums = {name: totals[f"{front}{name}"] for name in (GRAM, SHIFT) if f"{front}{name}" in totals}
    weights = {f"{name}.weight" for name in base.readers.get(group, [])}
    return sums | {name: total for name, total in totals.items() if name in weights}


def accumulate(totals: dict[str, Tensor], contribution: Mapping[str, Tensor], sign: float = 1.0) -> None:
    """totals += sign * contribution, in float64 and in place. ValueError if the two do not belong together."""
    summed, adding = ({name for name in names if not name.startswith(OWN)} for names in (totals, contribution))
    if totals and summed != adding:
        raise ValueError(
            f"contributions of different kinds do not add up: only one of them has {min(summed ^ adding)!r}"
        )
    for name, tensor in contribution.items():
        if name.startswith(OWN) and sign < 0:
            totals.pop(name, None)
            continue
        if name not in totals:
            totals[name] = torch.zeros(tensor.shape, dtype=torch.float64)
        for total, added in zip(totals[name].view(-1).split(BLOCK), tensor.reshape(-1).split(BLOCK), strict=True):
            total.add_(added, alpha=sign)
