"""AdvAnchor: fine-tuning towards adversarial anchors (Zhao et al. 2024, arXiv 2501.00054).

The anchor is the concept's own embedding plus a universal perturbation, e_a = e_c + pad(e_adv), found on the teacher:

    L_adv1 = mean( eps0(x_t, e_a) * eps0(x_t, e_c) )
    L_adv2 = mean( (eps0(x_t, e_a) - eps0(x_t, e_n)) * (eps0(x_t, e_c) - eps0(x_t, e_n)) )

The student then learns to predict for the concept what the teacher predicts for the anchor:

    L = MSE( eps(x_t, e_c), eps0(x_t, e_a) ) + preserve_weight * MSE( eps(x_t, e_n), eps0(x_t, e_n) )
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.methods import strategies
from advanchor.methods.anchors import LearnedAnchor, SearchSettings, Space
from advanchor.training import losses
from advanchor.training.context import Batch, Context, Erasure
from advanchor.training.cost import Cost, sampling

VERSION = 1  # raised whenever the same settings give other numbers
PACKABLE = True  # several concepts, of equally many attributes, may share a forward


class Settings(SearchSettings):
    name: Literal["adv_anchor"] = "adv_anchor"
    loss: Literal["adv1", "adv2"] = Field(
        default="adv2", description="which of the paper's two losses finds the anchor"
    )
    perturb_space: Space = Field(
        default="prompt_embeds", description="add e_adv to what the denoiser reads, or before the text encoders"
    )

    @property
    def space(self) -> Space:
        return self.perturb_space


class Anchor(LearnedAnchor):
    """e_a, from the concept itself."""

    settings: Settings

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context, settings, context.e_c)

    def loss(self, batch: Batch) -> Tensor:
        """adv1 or adv2, (concepts,), summed over the concept and its weighted attributes; halved if it has any."""
        known = self.context.teacher_constants(batch, self.avoided | {"neutral": self.context.e_n})
        (eps_a,) = self.context.predict(batch, self.conditioning(batch.templates))
        total = torch.zeros(len(eps_a), device=eps_a.device)
        for name, weights in self.weights.items():
            if self.settings.loss == "adv1":  # it multiplies noise: a flow's velocities are converted first
                pair = (self.context.eps_of(batch, predicted) for predicted in (eps_a, known[name]))
                total = total + weights[batch.concepts] * losses.adv1(*pair)
            else:
                total = total + weights[batch.concepts] * losses.adv2(eps_a, known[name], known["neutral"])
        return total / 2 if len(self.weights) > 1 else total


def erase(context: Context, settings: Settings) -> list[Erasure]:
    return strategies.erase_towards(Anchor(context, settings), context.latents(settings))


def cost(settings: Settings, concept: Concept) -> Cost:
    """The search needs the teacher's predictions for the concept, each attribute and the neutral prompt."""
    search_prompts = 2 + len(concept.attributes)
    return sampling(settings.num_latents, settings.latent_steps) + strategies.cost(settings, search_prompts)


def problems(settings: Settings, concept: Concept) -> list[str]:
    return []
