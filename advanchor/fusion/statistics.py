"""What one erasure contributes to a fusion, and the sums of contributions.

    gram_i   = E_i E_i^T            (D, D)      the same for every projection
    target_i = dW_i E_i E_i^T       (d_out, D)  one per projection            (closed_form)
    shift_i  = (E_a,i - E_i) E_i^T  (D, D)      the same for every projection (anchor_edit)

A contribution is a dictionary of tensors: "gram" with the targets by the names of the projections' weights, or with
"shift". Contributions add up, so a concept is taken out by subtracting what it brought in. What is named "own/..."
belongs to one concept (neurons.py): it comes and goes as a whole.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.diffusion import Conditioning
from advanchor.guard import gram, token_embeds
from advanchor.methods.adv_anchor import Settings as AdvAnchorSettings
from advanchor.models.base import Base
from advanchor.text import fill, later_tokens, pad_to_prompt

GRAM, SHIFT, OWN = "gram", "shift", "own/"
BLOCK = 2**15  # elements added at a time: what is converted to float64 for it stays in the processor's cache
FUSABLE = "cross_attention_kv"  # the trained_weights whose inputs are token embeddings, which closed forms need


def statistics(delta: Mapping[str, Tensor], prompt_embeds: Tensor) -> dict[str, Tensor]:
    """An erasure's contribution to `closed_form`, float32: its delta (weights only) over its prompts (B, L, D)."""
    e_e = gram(prompt_embeds.cpu())
    return {GRAM: e_e.float()} | {name: (dw.double() @ e_e).float() for name, dw in delta.items()}


def anchor_statistics(prompt_embeds: Tensor, anchor_embeds: Tensor) -> dict[str, Tensor]:
    """An anchor's contribution to `anchor_edit`, float64: both (B, L, D), the same prompts position by position."""
    e, e_a = token_embeds(prompt_embeds.cpu()), token_embeds(anchor_embeds.cpu())
    return {GRAM: e @ e.T, SHIFT: (e_a - e) @ e.T}


@torch.no_grad()
def anchor_conditioning(
    base: Base, concept: Concept, settings: AdvAnchorSettings, e_adv: Tensor
) -> tuple[Conditioning, Conditioning]:
    """e_c and e_a (templates, L, D) of a finished erasure, from what its anchor file holds."""
    prompts = [fill(template, concept.name) for template in concept.templates]
    positions = base.concept_tokens(prompts)
    if settings.perturb_tokens == "concept_and_later":
        positions = later_tokens(positions)
    shift = pad_to_prompt(e_adv.to(base.device), positions)
    e_c = base.encode(prompts)
    if settings.perturb_space == "prompt_embeds":
        return e_c, e_c.with_embeds(e_c.prompt_embeds + shift)
    return e_c, base.encode(prompts, token_shift=shift)


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
