"""The methods that erase a concept from the base: a file each, a line each in METHODS and in the union below it."""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, Field

from advanchor.concepts import Concept
from advanchor.methods import (
    adv_anchor,
    age,
    esd,
    fixed_anchor,
    guarded_anchor,
    hardened_anchor,
    no_op,
    speed,
    uce,
)
from advanchor.training.context import Context, Erasure
from advanchor.training.cost import Cost


class Method(Protocol):
    """What a method's file has. `settings` are its own Settings."""

    @property
    def Settings(self) -> type[BaseModel]: ...  # noqa: N802 (a class)

    @property
    def VERSION(self) -> int:  # noqa: N802 (a constant)
        """Raised whenever the same settings give other numbers."""
        ...

    @property
    def PACKABLE(self) -> bool:  # noqa: N802 (a constant)
        """Whether several concepts, of equally many attributes, may share a forward."""
        ...

    def erase(self, context: Context, settings: Any) -> list[Erasure]:
        """One Erasure per concept, in order, from a zero delta; that of a trained method without its projection."""
        ...

    def cost(self, settings: Any, concept: Concept) -> Cost:
        """What one concept asks of the denoiser: on average over draws, and where no search ends early."""
        ...

    def problems(self, settings: Any, concept: Concept) -> list[str]:
        """Why a concept cannot be erased with these settings, "setting: why" each."""
        ...


METHODS: Mapping[str, Method] = {
    "adv_anchor": adv_anchor,
    "guarded_anchor": guarded_anchor,
    "hardened_anchor": hardened_anchor,
    "fixed_anchor": fixed_anchor,
    "age": age,
    "esd": esd,
    "uce": uce,
    "speed": speed,
    "no_op": no_op,
}
MethodSettings = Annotated[
    adv_anchor.Settings
    | guarded_anchor.Settings
    | hardened_anchor.Settings
    | fixed_anchor.Settings
    | age.Settings
    | esd.Settings
    | uce.Settings
    | speed.Settings
    | no_op.Settings,
    Field(discriminator="name"),
]
