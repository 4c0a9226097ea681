"""One delta for all concepts, trained together: what fusions are compared with."""

import random
from collections.abc import Sequence

from torch import Tensor

from advanchor.artifacts import views
from advanchor.fusion.member import Member
from advanchor.fusion.sources import read_member
from advanchor.methods.adv_anchor import Anchor, Settings
from advanchor.models.base import Base
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine
from advanchor.training.latents import default_cache
from advanchor.training.loop import fit

PASSES = 5


def train(base: Base, members: Sequence[Member], passes: int = PASSES) -> dict[str, Tensor]:
    """dW after `passes` rounds through the concepts, each led to its own learned anchor.

    Every concept has as many steps in all as it had alone; Adam goes on from one to the next, in an order that is drawn
    for every round.
    """
    delta = Delta(base.backbone, members[0].method["trained_weights"])
    engine = TorchEngine(base.backbone, delta.named_parameters())
    engine.reset(members[0].method["lr"])
    try:
        for number in range(passes):
            for member in random.Random(number).sample(members, len(members)):
                settings = Settings(**member.method)
                settings = settings.model_copy(update={"steps": max(1, settings.steps // passes)})
                context = Context(base, engine, delta, [member.concept], [0], cache=default_cache())
                anchor = Anchor(context, settings)
                found = views(read_member(member), member.path)
                anchor.perturbation.rows = [found["e_adv"].to(base.device)]
                anchor.perturbation.pooled = [own.to(base.device) for own in found.values() if own.ndim == 1]
                batches = context.batches(settings, context.latents(settings), number)
                fit(context, settings, batches, anchor.target)
        return {name: stacked[0] for name, stacked in engine.export().items()}
    finally:
        delta.detach()
