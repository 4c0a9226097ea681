"""Settings of every method with which a few steps on the tiny pipeline are over at once."""

from typing import Any

from advanchor.methods import adv_anchor, control, esd, fixed_anchor, guarded_anchor, hardened_anchor, speed, uce

STEPS, ANCHOR_STEPS, LATENT_STEPS, NUM_LATENTS, BATCH_SIZE = 2, 3, 2, 3, 2
QUICK: dict[str, Any] = {
    "steps": STEPS, "lr": 1e-3, "batch_size": BATCH_SIZE, "num_latents": NUM_LATENTS, "latent_steps": LATENT_STEPS,
}  # fmt: skip
QUICK_ANCHOR: dict[str, Any] = QUICK | {"anchor_steps": ANCHOR_STEPS}


def adv(**settings: Any) -> adv_anchor.Settings:
    return adv_anchor.Settings(**QUICK_ANCHOR | {"anchor_lr": 1e-2} | settings)


SETTINGS: dict[str, Any] = {  # quick ones, a row for every method
    "adv_anchor": adv(),
    "guarded_anchor": guarded_anchor.Settings(**QUICK_ANCHOR | {"anchor_lr": 1e-2, "retain_prompts": 20}),
    "hardened_anchor": hardened_anchor.Settings(
        **QUICK_ANCHOR, anchor_lr=1e-2, retain_prompts=20, rounds=2, round_steps=1, attack_steps=2
    ),
    "fixed_anchor": fixed_anchor.Settings(**QUICK),
    "esd": esd.Settings(**QUICK, partial_steps=3),
    "uce": uce.Settings(),
    "speed": speed.Settings(retain_prompts=20, augment=0),
    "control": control.Settings(**QUICK, seconds=0.01),
}
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
    "no guard, from a similar concept": guarded_anchor.Settings(
        **QUICK_ANCHOR, retain_weight=0, start="similar", start_concept="circle"
    ),
    "uce with later tokens": uce.Settings(tokens="last_and_later", preserve=("a red star", "")),
    "speed to the empty prompt, unfiltered": speed.Settings(
        retain=("a blue circle",), retain_prompts=0, anchor="empty", filter_scale=0, augment=0, projections="values"
    ),
    "speed with later tokens": speed.Settings(
        retain_prompts=20, tokens="last_and_later", retain_tokens="all", anchor="concept", anchor_concept="circle"
    ),
    "esd with preserve term": esd.Settings(**QUICK, partial_steps=3, eta=2, preserve_weight=1),
}  # fmt: skip
