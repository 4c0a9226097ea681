"""advanchor.erase says what it wants instead of what it was given."""

from typing import Any

import pytest

import advanchor
from advanchor.concepts import Concept
from advanchor.models.base import Base

STAR = Concept(name="star", kind="object")
MISTAKES: dict[str, tuple[tuple, dict[str, Any], str]] = {
    "a name": (("Van Gogh",), {}, r"concept is 'Van Gogh', not a Concept: Concept\(name='Van Gogh', kind='style'\)"),
    "a method's name": ((STAR, "uce"), {}, r"method is 'uce', not settings: advanchor\.methods\.uce\.Settings\("),
    "a mapping": ((STAR, {"name": "uce"}), {}, "method is {'name': 'uce'}, not settings"),
    "a seed": ((STAR,), {"seed": "x"}, "seed is 'x', not a whole number"),
    "true as a seed": ((STAR,), {"seed": True}, "seed is True, not a whole number"),
    "half a seed": ((STAR,), {"seed": 0.5}, "seed is 0.5, not a whole number"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_arguments_of_another_type(base: Base, mistake: str) -> None:
    positional, named, message = MISTAKES[mistake]
    with pytest.raises(TypeError, match=message):
        advanchor.erase(base.pipeline, *positional, **named)
    assert not any("DeltaLinear" in type(module).__name__ for module in base.backbone.modules())
