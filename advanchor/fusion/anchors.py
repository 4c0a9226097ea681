"""The learned anchors of finished erasures, computed again from their settings and anchor files."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from advanchor.fusion.member import Member
from advanchor.methods import MethodSettings
from advanchor.methods.anchors import SearchSettings, finished_anchor
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning

SETTINGS: TypeAdapter[Any] = TypeAdapter(MethodSettings)


def anchor_problem(method: Mapping[str, Any], way: str) -> str:
    """Why `way` cannot make an anchor again from the settings of the method that found it; empty if it can."""
    try:
        settings = SETTINGS.validate_python(dict(method))
    except ValidationError as error:
        details = error.errors()[0]
        where = ".".join(map(str, details["loc"]))
        return f"was erased with settings of another version: method.{where}: {details['msg']}"
    if not isinstance(settings, SearchSettings):
        return f"was erased with method.name: {method['name']}, which leaves no anchor for {way}"
    return ""


def anchor_of(base: Base, member: Member, tensors: Mapping[str, Tensor]) -> tuple[Conditioning, Conditioning]:
    """e_c and e_a (templates, L, D), the latter from where its search started. tensors: of the anchor file."""
    settings = SETTINGS.validate_python(member.method)
    return finished_anchor(base, member.concept, settings, tensors["e_adv"], tensors.get("pooled_adv"))
