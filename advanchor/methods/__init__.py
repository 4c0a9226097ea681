"""The methods and the one way to run them: registry.py lists those that erase, continue_from goes on from a delta."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from advanchor.concepts import Concept
from advanchor.methods import continue_from, registry
from advanchor.methods.registry import Method
from advanchor.training.context import Context, Erasure, TrainingSettings
from advanchor.training.cost import Cost
from advanchor.training.finite import NotFiniteError, check_finite, explained
from advanchor.training.projection import behind_projection

METHODS: Mapping[str, Method] = {**registry.METHODS, "continue_from": continue_from}
MethodSettings = Annotated[registry.MethodSettings | continue_from.Settings, Field(discriminator="name")]


def for_base(settings: MethodSettings, choices: Sequence[str]) -> MethodSettings:
    """The settings with `trained_weights` as this base has them: where it was left open, all that reads its prompts.

    A base with a pooled vector says the concept there, too: keys and values alone could not take it away. ValueError
    for weights that the base does not have, and for a pooled vector to be learned where there is none.
    """
    name = settings.trained_weights
    if getattr(settings, "perturb_pooled", "") == "learn" and "pooled" not in choices:
        raise ValueError("perturb_pooled: learn asks for a base with a pooled vector, which this one has not")
    if "trained_weights" not in settings.model_fields_set and (name not in choices or "pooled" in choices):
        return settings.model_copy(update={"trained_weights": "readers"})
    if name not in choices:
        raise ValueError(f"trained_weights: this base has {', '.join(choices)}, not {name}")
    return settings


def problems(settings: MethodSettings, concept: Concept) -> list[str]:
    """Why a concept cannot be erased with these settings, "setting: why" each; empty if it can."""
    return METHODS[settings.name].problems(settings, concept)


def cost(settings: MethodSettings, concept: Concept) -> Cost:
    """What the erasure of one concept asks of the denoiser; for a search that may end early, if it does not."""
    return METHODS[settings.name].cost(settings, concept)


def erase(context: Context, settings: MethodSettings) -> list[Erasure]:
    """Run the method that the settings belong to on the context's pack, with a fresh delta and optimizer.

    One Erasure per concept, in order; of a trained method behind its projection, if retain_weight asks for one.
    ValueError for several concepts of a method that takes one at a time, and for one that has `problems`.
    NotFiniteError where numbers run away.
    """
    method = METHODS[settings.name]
    if found := [problem for concept in context.concepts for problem in method.problems(settings, concept)]:
        raise ValueError("; ".join(found))
    if len(context.concepts) > 1 and not method.PACKABLE:
        raise ValueError(f"{settings.name} erases one concept at a time, not {len(context.concepts)}")
    context.engine.reset(settings.lr)
    try:
        erasures = erased(context, settings, method)
        for erasure in erasures:
            check_finite(erasure.delta, erasure.e_adv, erasure.pooled_adv)
    except NotFiniteError as error:
        raise explained(error, settings) from error
    return erasures


def erased(context: Context, settings: MethodSettings, method: Method) -> list[Erasure]:
    if not isinstance(settings, TrainingSettings):
        return method.erase(context, settings)
    return behind_projection(context, settings, lambda: method.erase(context, settings))
