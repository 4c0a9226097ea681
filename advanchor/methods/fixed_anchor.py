"""Concept Ablation with a fixed text anchor (Kumari et al. 2023): the student's concept becomes another prompt.

L = MSE( eps(x_t, e_c), eps0(x_t, e_anchor) ) + preserve_weight * MSE( eps(x_t, e_n), eps0(x_t, e_n) )
"""

from typing import Literal

from torch import Tensor

from advanchor.concepts import Concept
from advanchor.methods.anchors import TextAnchorSettings, lacks_similar, text_anchor
from advanchor.training.context import Batch, Context, Erasure, TrainingSettings
from advanchor.training.cost import Cost, sampling
from advanchor.training.loop import fit, fit_cost

VERSION = 1
PACKABLE = True  # several concepts may share a forward


class Settings(TextAnchorSettings, TrainingSettings):
    name: Literal["fixed_anchor"] = "fixed_anchor"


def erase(context: Context, settings: Settings) -> list[Erasure]:
    anchor = text_anchor(context, settings.anchor, settings.anchor_concept)

    def target(batch: Batch) -> Tensor:
        """eps0(x_t, e_anchor)."""
        return context.teacher_constants(batch, {"anchor": anchor})["anchor"]

    return fit(context, settings, context.batches(settings, context.latents(settings)), target)


def cost(settings: Settings, concept: Concept) -> Cost:
    return sampling(settings.num_latents, settings.latent_steps) + fit_cost(settings, target=1)


def problems(settings: Settings, concept: Concept) -> list[str]:
    return lacks_similar(concept, "anchor", settings.anchor, settings.anchor_concept)
