"""Settings as users write them: one name for one thing, and old names refused with the new ones."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from advanchor.batch.file import parse_batch
from advanchor.batch.spec import BatchError, BatchSpec
from advanchor.methods import METHODS
from advanchor.training.context import TrainingSettings

BATCH = "model: pocket\nconcepts: [{name: star, kind: object}]\nmethod: {name: %s, %s}\n"


def parsed(name: str, setting: str) -> BatchSpec:
    return parse_batch(BATCH % (name, setting), Path("batch.yaml")).spec


@pytest.mark.parametrize(
    ("method", "setting", "old", "new"),
    [
        ("uce", "preserve: [a cat]", "preserve", "retain"),
        ("uce", "preserve_weight: 2", "preserve_weight", "retain_weight"),
        ("speed", "invariants: true", "invariants", "retain_empty"),
        ("speed", "strength: 2", "strength", "scale"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(method: str, setting: str, old: str, new: str) -> None:
    with pytest.raises(BatchError, match=rf"batch\.yaml:3:\d+: method\.{old}: '{old}' is called '{new}'"):
        parsed(method, setting)


def test_the_training_losss_preserve_weight_keeps_its_name() -> None:
    method: Any = parsed("guarded_anchor", "preserve_weight: 2").method
    assert method.preserve_weight == 2


def test_a_projection_asks_for_weights_that_read_prompts() -> None:
    with pytest.raises(BatchError, match=r"batch\.yaml:3:1: method: retain_weight: 1 goes with"):
        parsed("esd", "retain_weight: 1, trained_weights: cross_attention")


def own_fields(settings: type[BaseModel]) -> dict[str, Any]:
    return {name: settings.model_fields[name] for name in settings.__annotations__ if name in settings.model_fields}


@pytest.mark.parametrize("name", METHODS)
def test_no_settings_narrow_what_they_inherit(name: str) -> None:
    """A field that is declared again has another default or another sentence, never fewer values."""
    lineage = [cls for cls in METHODS[name].Settings.__mro__ if issubclass(cls, BaseModel) and cls is not BaseModel]
    for i, cls in enumerate(lineage):
        for field, info in own_fields(cls).items():
            inherited = [above.model_fields[field] for above in lineage[i + 1 :] if field in above.model_fields]
            assert field == "name" or all(info.annotation == other.annotation for other in inherited), field


def test_every_trained_method_can_run_behind_a_projection() -> None:
    trained = [method.Settings for method in METHODS.values() if issubclass(method.Settings, TrainingSettings)]
    assert len(trained) == 7
    defaults = {cls.model_fields["name"].default: cls.model_fields["retain_weight"].default for cls in trained}
    assert {name for name, weight in defaults.items() if weight} == {"guarded_anchor"}
