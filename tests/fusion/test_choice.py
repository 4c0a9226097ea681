"""What `method: auto` comes to, and what it costs to find out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fusing import RETAIN, made
from torch import nn

from advanchor.fusion.artifact import write_fused
from advanchor.fusion.choice import FEW, FEW_NAMES, FEW_PROJECTED_NAMES, choose, holds_neurons
from advanchor.fusion.fuse import fuse, plan_fusion
from advanchor.fusion.member import FusionError
from advanchor.fusion.sources import Finished
from advanchor.fusion.ways import FusionSettings
from advanchor.methods import adv_anchor, esd, guarded_anchor, uce
from advanchor.models.base import Base

FILES = {stem: {"name": f"{stem}.safetensors"} for stem in ("delta", "anchor", "statistics")}
LEARNED = adv_anchor.Settings().model_dump()
PROJECTED = guarded_anchor.Settings().model_dump()
TAUGHT = esd.Settings().model_dump()


def finished(count: int, kind: str, method: dict[str, Any], **files: Any) -> list[Finished]:
    concepts = [{"name": f"{kind} {i}", "kind": kind} for i in range(count)]
    return [Finished("run", {"concept": c, "method": method, "files": FILES | files}) for c in concepts]


def way(found: list[Finished], base: Base | None = None) -> str:
    def load() -> Base:
        assert base is not None, "the base was not to be loaded"
        return base

    (choice,) = choose(found, FusionSettings(), load)
    assert choice.count == len(found) and str(choice).startswith(f"{choice.kind} ({len(found)}): {choice.way}, since ")
    return choice.way


@pytest.mark.parametrize("kind", ["style", "object", "explicit"])
def test_what_is_no_name_is_summed_if_it_is_projected_or_little(kind: str) -> None:
    assert way(finished(300, kind, PROJECTED)) == way(finished(FEW, kind, LEARNED)) == "task_arithmetic"
    assert way(finished(FEW + 1, kind, LEARNED)) == way(finished(FEW + 1, kind, TAUGHT)) == "closed_form"
    assert way(finished(FEW + 1, kind, uce.Settings().model_dump())) == "closed_form"  # its retain_weight is not one
    half = [*finished(FEW, kind, PROJECTED), *finished(FEW, kind, LEARNED)]
    assert way(half) == "closed_form"
    assert way(finished(FEW + 1, kind, TAUGHT | {"trained_weights": "cross_attention"})) == "task_arithmetic"


def test_many_names_become_neurons_where_there_are_anchors_and_the_text_encoder_takes_them(base: Base) -> None:
    many = FEW_PROJECTED_NAMES + 1
    assert way(finished(FEW_NAMES, "identity", LEARNED)) == "task_arithmetic"
    assert way(finished(FEW_NAMES + 1, "identity", LEARNED), base) == "neurons"
    assert way(finished(FEW_PROJECTED_NAMES, "identity", PROJECTED)) == "task_arithmetic"
    assert (
        way(finished(many, "identity", LEARNED), base) == way(finished(many, "identity", PROJECTED), base) == "neurons"
    )
    assert way(finished(many, "identity", TAUGHT)) == "closed_form"
    base.encoders = [replace(base.encoders[0], module=nn.Linear(2, 2))]
    assert not holds_neurons(base)
    assert way(finished(many, "identity", LEARNED), base) == "closed_form"


def test_kinds_are_chosen_for_on_their_own_and_what_is_told_stays(base: Base) -> None:
    found = [*finished(2, "style", LEARNED), *finished(9, "identity", LEARNED)]
    assert {c.kind: c.way for c in choose(found, FusionSettings(), lambda: base)} == {
        "style": "task_arithmetic",
        "identity": "neurons",
    }
    told = FusionSettings(method_by_kind={"identity": "closed_form"})
    assert [c.kind for c in choose(found, told, lambda: base)] == ["style"]
    assert not choose(found, FusionSettings(method="closed_form"), lambda: base)


def test_a_fusion_keeps_to_what_was_chosen_when_it_is_changed(run: Path, base: Base, tmp_path: Path) -> None:
    first = fuse(plan_fusion([str(run)], {}, RETAIN, only=["circle", "someone"]), base)
    assert first.settings.method_by_kind == {"object": "task_arithmetic", "identity": "task_arithmetic"}
    write_fused(first, tmp_path / "fused")
    plan = plan_fusion([str(tmp_path / "fused"), str(run)])
    assert not plan.choices and [member.concept.name for member in plan.coming] == ["star"]
    expected = made(run, base, method="task_arithmetic").delta
    found = fuse(plan, base).delta
    assert all((found[name] - tensor).abs().max() < 1e-6 for name, tensor in expected.items())
    with pytest.raises(FusionError, match=r"was fused by method auto, not by neurons"):
        plan_fusion([str(tmp_path / "fused")], {"method": "neurons"})
    with pytest.raises(FusionError, match=r"was fused by task_arithmetic \(object\), not by neurons"):
        plan_fusion([str(tmp_path / "fused")], {"method_by_kind": {"object": "neurons"}})
