"""Settings of every method with which a few steps on the tiny pipeline are over at once."""

from typing import Any

import pytest

from advanchor.methods import adv_anchor, age, esd, fixed_anchor, guarded_anchor, hardened_anchor, no_op, speed, uce

STEPS, ANCHOR_STEPS, LATENT_STEPS, NUM_LATENTS, BATCH_SIZE = 2, 3, 2, 3, 2
QUICK: dict[str, Any] = {
    "steps": STEPS, "lr": 1e-3, "batch_size": BATCH_SIZE, "num_latents": NUM_LATENTS, "latent_steps": LATENT_STEPS,
}  # fmt: skip
QUICK_ANCHOR: dict[str, Any] = QUICK | {"anchor_steps": ANCHOR_STEPS}
ADV: dict[str, Any] = QUICK_ANCHOR | {"anchor_lr": 1e-2}


def adv(**settings: Any) -> adv_anchor.Settings:
    return adv_anchor.Settings(**ADV | settings)


SETTINGS: dict[str, Any] = {  # quick ones, a row for every method
    "adv_anchor": adv(),
    "guarded_anchor": guarded_anchor.Settings(**ADV, retain_prompts=20),
    "hardened_anchor": hardened_anchor.Settings(**ADV, retain_prompts=20, rounds=2, round_steps=1, attack_steps=2),
    "fixed_anchor": fixed_anchor.Settings(**QUICK),
    "age": age.Settings(**QUICK, candidate_prompts=8, top=3, search_lr=0.1),
    "esd": esd.Settings(**QUICK, partial_steps=3),
    "uce": uce.Settings(),
    "speed": speed.Settings(retain_prompts=20, augment=0),
    "no_op": no_op.Settings(**QUICK, seconds=0.01),
}
PROJECTED = ("adv_anchor", "hardened_anchor", "fixed_anchor", "age", "esd")  # can be, and are not by default
LOSSES, STRATEGIES = ("adv1", "adv2"), ("alternating", "sequential", "cyclical")
VARIANTS: dict[str, Any] = {
    **{f"{loss} {strategy}": adv(loss=loss, strategy=strategy) for loss in LOSSES for strategy in STRATEGIES},
    **{f"redraw {strategy}": adv(redraw=True, strategy=strategy) for strategy in STRATEGIES},
    "before the text encoder": adv(perturb_space="token_embeds"),
    "later tokens": adv(perturb_tokens="concept_and_later"),
    "reset optimizer": adv(reset_anchor_optimizer=True),
    "all of cross-attention": adv(trained_weights="cross_attention"),
    "bare concept": adv(latent_prompts="concept"),
    "no preserve term": adv(preserve_weight=0),
    "empty anchor": fixed_anchor.Settings(**QUICK, anchor="empty"),
    "another concept as anchor": fixed_anchor.Settings(**QUICK, anchor="concept", anchor_concept="circle"),
    "no projection, from a similar concept": guarded_anchor.Settings(
        **QUICK_ANCHOR, retain_weight=0, start="similar", start_concept="circle"
    ),
    "age among names": age.Settings(**QUICK, candidates=("star", "circle", "triangle"), top=2),
    "age without a search": age.Settings(**QUICK, candidate_prompts=8, search_steps=0, kept_weight=0),
    "uce with later tokens": uce.Settings(tokens="last_and_later", retain=("a red star", "")),
    "speed to the empty prompt, unfiltered": speed.Settings(
        retain=("a blue circle",), retain_prompts=0, anchor="empty", filter_scale=0, augment=0, projections="values"
    ),
    "speed with later tokens": speed.Settings(
        retain_prompts=20, tokens="last_and_later", retain_tokens="all", anchor="concept", anchor_concept="circle"
    ),
    **{f"{name} + projection": SETTINGS[name].model_copy(update={"retain_weight": 1.0, "retain_prompts": 20})
       for name in PROJECTED},
    "esd with preserve term": esd.Settings(**QUICK, partial_steps=3, eta=2, preserve_weight=1),
}  # fmt: skip


def rows(table: dict[str, Any]) -> list[Any]:
    """The names of a table as parameters of a test: `make quick` tries the methods, `make test` all their variants."""
    return [name if name in SETTINGS else pytest.param(name, marks=pytest.mark.slow) for name in table]
