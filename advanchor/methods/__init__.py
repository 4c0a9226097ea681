"""The methods: one file each, with `Settings`, `VERSION` and `erase(context, settings) -> Erasure`."""

from types import ModuleType
from typing import Annotated

from pydantic import Field

from advanchor.methods import adv_anchor, esd, fixed_anchor, uce
from advanchor.training import Context, Erasure

METHODS: dict[str, ModuleType] = {
    "adv_anchor": adv_anchor,
    "fixed_anchor": fixed_anchor,
    "esd": esd,
    "uce": uce,
}
MethodSettings = Annotated[
    adv_anchor.Settings | fixed_anchor.Settings | esd.Settings | uce.Settings, Field(discriminator="name")
]


def erase(context: Context, settings: MethodSettings) -> Erasure:
    """Run the method that the settings belong to, on a fresh delta and optimizer."""
    context.engine.reset(settings.lr)
    return METHODS[settings.name].erase(context, settings)
