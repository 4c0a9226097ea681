"""advanchor: takes hundreds of concepts out of a text-to-image diffusion model, with adversarial anchors.

`erase`, `apply` and `remove` work on one pipeline in one process; batches on a cluster are the command `advanchor`'s
business.
"""

from typing import TYPE_CHECKING, Any

from advanchor._version import __version__ as __version__

__all__ = ["Concept", "apply", "erase", "remove"]

if TYPE_CHECKING:
    from advanchor.api import Concept, apply, erase, remove


def __getattr__(name: str) -> Any:
    """Import the interface on first use: it brings torch, which `advanchor --help` must not wait for."""
    if name in __all__:
        from advanchor import api

        return getattr(api, name)
    raise AttributeError(f"module 'advanchor' has no attribute {name!r}")
