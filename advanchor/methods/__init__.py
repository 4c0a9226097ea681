"""The methods: a file each, with `Settings`, `VERSION`, `PACKABLE` and `erase(context, settings) -> list[Erasure]`."""

from types import ModuleType
from typing import Annotated

from pydantic import Field

from advanchor.concepts import Concept
from advanchor.methods import (
    adv_anchor,
    control,
    esd,
    fixed_anchor,
    guarded_anchor,
    hardened_anchor,
    retune,
    speed,
    uce,
)
from advanchor.training import Context, Erasure

METHODS: dict[str, ModuleType] = {
    "adv_anchor": adv_anchor,
    "guarded_anchor": guarded_anchor,
    "hardened_anchor": hardened_anchor,
    "fixed_anchor": fixed_anchor,
    "esd": esd,
    "uce": uce,
    "speed": speed,
    "retune": retune,
    "control": control,
}
MethodSettings = Annotated[
    adv_anchor.Settings
    | guarded_anchor.Settings
    | hardened_anchor.Settings
    | fixed_anchor.Settings
    | esd.Settings
    | uce.Settings
    | speed.Settings
    | retune.Settings
    | control.Settings,
    Field(discriminator="name"),
]


def missing_similar(settings: MethodSettings, concept: Concept) -> str:
    """Why a concept cannot be erased towards, or from, one like it; empty if it can, or need not."""
    for setting, value in (("anchor", "concept"), ("start", "similar")):
        other = f"{setting}_concept"
        if getattr(settings, setting, None) == value and not (getattr(settings, other) or concept.similar):
            return f"{setting}: {value} asks for {other}, or for `similar` of {concept.name!r}"
    return ""


def erase(context: Context, settings: MethodSettings) -> list[Erasure]:
    """Run the method that the settings belong to on the context's pack, with a fresh delta and optimizer.

    One Erasure per concept, in order. ValueError for several concepts of a method that takes one at a time, and for one
    that lacks the similar concept which the settings ask for.
    """
    method = METHODS[settings.name]
    for concept in context.concepts:
        if problem := missing_similar(settings, concept):
            raise ValueError(problem)
    if len(context.concepts) > 1 and not method.PACKABLE:
        raise ValueError(f"{settings.name} erases one concept at a time, not {len(context.concepts)}")
    context.engine.reset(settings.lr)
    return method.erase(context, settings)
