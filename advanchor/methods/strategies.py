"""In which order an anchor is searched and the student trained towards it (Zhao et al. 2024, arXiv 2501.00054).

The authors' scripts op1, op2 and op3:

    alternating   for each batch: up to anchor_steps steps on e_adv, then one step of the student
    sequential    all batches: up to anchor_steps steps on e_adv each; then the student's pass, e_adv frozen
    cyclical      anchor_steps sweeps over all batches, one step on e_adv per batch; then the student's pass
"""

import torch
from torch import Tensor

from advanchor.methods.anchors import LearnedAnchor, SearchSettings
from advanchor.training.context import Batch, Context, Erasure
from advanchor.training.cost import Cost, predictions
from advanchor.training.loop import fit, fit_cost
from advanchor.training.representation import READS_TEXT, price_of_anchor


def erase_towards(anchor: LearnedAnchor, latents: Tensor) -> list[Erasure]:
    """Search and fine-tuning in the order of the anchor's strategy, on x_0 (concepts, num_latents, C, h, w)."""
    context, settings = anchor.context, anchor.settings
    batches = context.batches(settings, latents)
    context.base.rest()

    def sweep(number: int) -> list[Batch]:
        return context.batches(settings, latents, number) if settings.redraw and number else batches

    def searched_target(batch: Batch) -> Tensor:
        anchor.search(batch)
        return anchor.target(batch)

    match settings.strategy:
        case "alternating":
            erasures = fit(context, settings, batches, searched_target)
        case "sequential":
            for i, batch in enumerate(batches):
                anchor.search(batch)
                context.report("anchor", i + 1, len(batches), 0.0)
            erasures = fit(context, settings, sweep(1), anchor.target)
        case "cyclical":
            for i in range(settings.anchor_steps):
                for batch in sweep(i):
                    anchor.step(batch)
                context.report("anchor", i + 1, settings.anchor_steps, 0.0)
            erasures = fit(context, settings, sweep(settings.anchor_steps), anchor.target)
    for number, (erasure, e_adv) in enumerate(zip(erasures, anchor.e_adv, strict=True)):
        own = context.e_c.rows(context.spans[number])
        erasure.e_adv = e_adv.detach().cpu()
        erasure.facts |= anchor_norms(context, e_adv, context.spans[number]) | price(anchor, number)
        if anchor.pooled_adv:
            erasure.pooled_adv = anchor.pooled_adv[number].detach().cpu()
            length = own.added["pooled"].norm(dim=-1).mean().cpu()
            erasure.facts["pooled_adv_relative_norm"] = (erasure.pooled_adv.norm() / length).item()
    return erasures


@torch.no_grad()
def price(anchor: LearnedAnchor, number: int) -> dict[str, float]:
    """What it takes the readers of prompt embeddings to represent a concept's anchor; of other weights, nothing."""
    context, settings = anchor.context, anchor.settings
    if settings.trained_weights not in READS_TEXT:
        return {}
    templates = torch.arange(len(context.prompts))[context.spans[number]]
    told = anchor.conditioning(templates[None].to(context.base.device)).rows(0)
    found = price_of_anchor(context.base, context.e_c.rows(context.spans[number]), told, settings.ridge)
    return {"anchor_map_norm": found.norm, "anchor_unreached": found.unreached}


def anchor_norms(context: Context, e_adv: Tensor, templates: slice) -> dict[str, float]:
    """How far an anchor went: the mean norm of e_adv's rows, and relative to the concept's own embeddings."""
    inside = context.positions[templates] >= 0
    own = context.e_c.prompt_embeds[templates][inside].norm(dim=-1).mean()
    rows = e_adv.detach().norm(dim=-1)
    return {"e_adv_norm": rows.mean().item(), "e_adv_relative_norm": (rows.mean() / own).item()}


def cost(settings: SearchSettings, search_prompts: int, target_prompts: int = 0) -> Cost:
    """Cost of erase_towards, where no search ends early.

    search_prompts, target_prompts: for how many prompt sets the search's loss and the target need the teacher's
    predictions. They are made once per batch; the student's pass makes them again where its batches are new or were
    never searched.
    """
    draws, searches = settings.steps * settings.batch_size, settings.anchor_steps
    sweeps = searches if settings.strategy == "cyclical" and settings.redraw else min(searches, 1)
    predicted_again = not searches or (settings.redraw and settings.strategy != "alternating")
    search = predictions(draws * sweeps, teacher=search_prompts) + predictions(draws * searches, learned=1)
    return search + fit_cost(settings, target=1 + target_prompts * predicted_again, neutral_known=not predicted_again)
