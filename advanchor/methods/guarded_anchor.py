"""Adversarial anchors beyond neutral, behind a projection: AdvAnchor (Zhao et al. 2024), changed in four ways.

With d = eps0(x_t, e_c) - eps0(x_t, e_n) and m = eps0(x_t, e_a) - eps0(x_t, e_n), r = <m, d> / <d, d>:

1. The anchor starts at the neutral prompt (or another concept, or, as in the paper, the concept): e_a = e_start +
   pad(e_adv), where e_adv also covers the tokens after the concept, which carry it in a causal text encoder.
2. The anchor goes beyond neutral and changes nothing else. Instead of L_adv2, which is <m, d>, the search minimises

       L = mean( max(r + margin, 0) + drift |s - q d|^2 / |d|^2 ),     s = eps0(x_t, e_a) - eps0(x_t, e_start),

   q = <s, d> / <d, d>: what the anchor does across d, measured from where it started.

3. The student goes beyond the anchor, away from the concept:

       target = eps0(x_t, e_a) - beyond (eps0(x_t, e_c) - eps0(x_t, e_a)).

4. The student learns dW P instead of dW, as any trained method does where retain_weight is above 0: P leaves retained
   prompts what they mean, and training makes up for what it takes away (training/projection.py).

1 to 3 are a far anchor (far_anchor.py). Each can be turned off: start: own; margin and drift 0; beyond: 0;
retain_weight: 0.
"""

from typing import Literal

from pydantic import Field

from advanchor.concepts import Concept
from advanchor.methods import strategies
from advanchor.methods.anchors import lacks_similar
from advanchor.methods.far_anchor import FarAnchor, FarSettings
from advanchor.training.context import Context, Erasure
from advanchor.training.cost import Cost, sampling

VERSION = 2
PACKABLE = True


class Settings(FarSettings):
    name: Literal["guarded_anchor"] = "guarded_anchor"
    retain_weight: float = Field(default=1.0, ge=0, description="gamma of the projection; 0: no projection")


def erase(context: Context, settings: Settings) -> list[Erasure]:
    return strategies.erase_towards(FarAnchor(context, settings), context.latents(settings))


def cost(settings: FarSettings, concept: Concept) -> Cost:
    """The search needs the teacher's predictions for e_c, e_n, attributes and a similar start; the target for e_c."""
    search_prompts = 2 + len(concept.attributes) + (settings.start == "similar")
    own = strategies.cost(settings, search_prompts, target_prompts=1)
    return sampling(settings.num_latents, settings.latent_steps) + own


def problems(settings: FarSettings, concept: Concept) -> list[str]:
    return lacks_similar(concept, "start", settings.start, settings.start_concept)
