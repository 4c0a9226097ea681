"""Numbers in settings: finite, no booleans, and no larger than 64 bits, in every group of settings."""

import types
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from advanchor.batch.retain import Retain, WeightedPrompt
from advanchor.batch.spec import BatchSpec, DeepSpeedSettings, FileEntry, PresetEntry, Resources
from advanchor.concepts import Concept
from advanchor.evaluation.settings import EvaluationSettings, SamplingSettings, ScorerSettings
from advanchor.fusion.gate import Bars, Examination
from advanchor.fusion.ways import FusionSettings
from advanchor.methods import METHODS
from advanchor.settings import Section

MODELS: list[type[BaseModel]] = [
    BatchSpec, Concept, PresetEntry, FileEntry, Resources, DeepSpeedSettings, SamplingSettings, EvaluationSettings,
    ScorerSettings, Retain, WeightedPrompt, FusionSettings, Bars, Examination,
    *(module.Settings for module in METHODS.values()),
]  # fmt: skip


def holding(annotation: Any, value: Any) -> Any:
    """A value of a field, which has `value` where the field has a number; None if it has none."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in (int, float):
        return value
    if origin in (Union, types.UnionType):
        return next((held for part in parts if (held := holding(part, value)) is not None), None)
    if origin is tuple and (held := holding(parts[0], value)) is not None:
        return [held]
    if origin is dict and (held := holding(parts[1], value)) is not None:
        return {"style": held}
    return None


def numeric(model: type[BaseModel]) -> list[str]:
    fields = model.model_fields.items()
    return [info.alias or name for name, info in fields if holding(info.annotation, 1) is not None]


CASES = [(model, name) for model in MODELS for name in numeric(model)]


def complaints(model: type[BaseModel], name: str, value: Any) -> list[str]:
    """What is said of a field, in which a number is `value`; other fields may be missing."""
    info = next(info for key, info in model.model_fields.items() if name in (key, info.alias))
    with pytest.raises(ValidationError) as caught:
        model.model_validate({name: holding(info.annotation, value)})
    return [details["msg"] for details in caught.value.errors() if details["loc"][0] == name]


def test_there_are_many() -> None:
    assert len(CASES) > 60 and all(issubclass(model, Section) for model in MODELS)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), True, False, 10**400], ids=repr)
@pytest.mark.parametrize(("model", "name"), CASES, ids=lambda part: getattr(part, "__module__", part))
def test_a_number_is_finite_and_no_boolean(model: type[BaseModel], name: str, value: Any) -> None:
    assert complaints(model, name, value)


def test_the_place_is_the_number_s_own() -> None:
    with pytest.raises(ValidationError) as caught:
        Concept.model_validate({"name": "a", "kind": "style", "attributes": {"x": 1, "y": True, "z": float("inf")}})
    assert [details["loc"] for details in caught.value.errors()] == [("attributes", "y"), ("attributes", "z")]


def test_switches_stay_booleans() -> None:
    assert METHODS["adv_anchor"].Settings.model_validate({"redraw": True}).model_dump()["redraw"] is True
    with pytest.raises(ValidationError):
        DeepSpeedSettings.model_validate({"stage": True})
