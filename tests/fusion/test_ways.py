"""What every way of fusing keeps to, on the same three erasures. A way without a row in ROWS fails."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fusing import RETAIN, by, close, erase, made

from advanchor import models
from advanchor.artifacts import from_bytes
from advanchor.fusion.artifact import Fusion
from advanchor.fusion.fuse import contribution, fuse, plan_fusion
from advanchor.fusion.member import FusionError
from advanchor.fusion.repair import STRONGER, strengthened
from advanchor.fusion.sources import finished, read_member
from advanchor.fusion.statistics import anchor_statistics
from advanchor.fusion.ways import WAYS, FusionSettings, neurons
from advanchor.models.base import Base


@dataclass(frozen=True)
class Row:
    reads: str  # the file of a task that is enough for it
    parts: tuple[str, ...]  # what of the model it changes
    repair: str  # how it mends a concept, or why it cannot


ROWS = {
    "closed_form": Row("statistics", ("delta",), "retrain"),
    "anchor_edit": Row("anchor", ("delta",), "shares among all"),
    "task_arithmetic": Row("delta", ("delta",), "strengthen"),
    "neurons": Row("anchor", ("neurons",), "strengthen"),
    "distill": Row("anchor", ("delta",), "teaches one student"),
    "distill+neurons": Row("anchor", ("delta", "neurons"), "teaches one student"),
}
EVERY = pytest.mark.parametrize("way", list(WAYS))


def parts(fusion: Fusion) -> dict[str, dict[str, torch.Tensor]]:
    return {"delta": fusion.delta, "neurons": fusion.neurons}


def test_every_way_has_a_row() -> None:
    assert ROWS.keys() == WAYS.keys()


@EVERY
def test_it_reads_one_file_of_a_task_and_changes_its_part_of_the_model(
    run: Path, base: Base, tmp_path: Path, way: str
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "copy"))
    for path in copied.glob("tasks/*/*.safetensors"):
        if not path.name.startswith(f"{ROWS[way].reads}-"):
            path.unlink()
    found = parts(made(copied, base, method=way))
    changed = tuple(name for name, tensors in found.items() if any(t.any() for t in tensors.values()))
    assert changed == ROWS[way].parts


@EVERY
def test_contributions_add_up_and_come_off_again(run: Path, base: Base, way: str) -> None:
    """What is left when one leaves is what would have been there without it."""
    plan = plan_fusion([str(run)], by(way), RETAIN)
    whole = fuse(plan, base)
    plan.leaving, plan.coming = [plan.members.pop("star")], []
    found, expected = fuse(plan, base), made(run, base, method=way, without=["star"])
    assert found.totals[way].keys() == expected.totals[way].keys()
    assert close(found.totals[way], expected.totals[way], 1e-9)
    assert all(parts(whole)[part].keys() == parts(found)[part].keys() for part in ROWS[way].parts)


@EVERY
def test_the_base_is_itself_again_afterwards(run: Path, base: Base, way: str) -> None:
    modules = (base.backbone, base.encoders[0].module)
    before = [{name: tensor.clone() for name, tensor in module.state_dict().items()} for module in modules]
    with made(run, base, method=way).on(base):
        changed = [module.state_dict() for module in modules]
        assert any(
            x[k].shape != y[k].shape or not x[k].equal(y[k]) for x, y in zip(before, changed, strict=True) for k in x
        )
    after = [module.state_dict() for module in modules]
    assert all(x[k].equal(y[k]) for x, y in zip(before, after, strict=True) for k in x)


@EVERY
def test_it_says_how_a_concept_is_mended(run: Path, base: Base, way: str) -> None:
    fusion = made(run, base, method=way)
    star, wanted = fusion.members["star"], ROWS[way].repair
    if wanted not in ("retrain", "strengthen"):
        with pytest.raises(FusionError, match=wanted):
            WAYS[way].repair(star)
        return
    assert WAYS[way].repair(star) == wanted
    if wanted == "strengthen":
        strong = strengthened(base, fusion, ["star"])
        assert strong.members["star"].scale == STRONGER and strong.members["circle"] == fusion.members["circle"]
        plan = plan_fusion([str(run)], {"method": way})
        plan.coming[1] = plan.members["star"] = strong.members["star"]
        assert close(fuse(plan, base).totals[way], strong.totals[way])


@EVERY
def test_it_says_what_it_cannot_fuse(tiny_base: Path, tmp_path: Path, way: str) -> None:
    """esd leaves no anchor, and here none of the weights that closed forms are about."""
    method = {"name": "esd", "trained_weights": "cross_attention", "steps": 1, "lr": 1e-3}
    run = erase(tiny_base, tmp_path / "run", ("star",), plain=method)
    if way == "task_arithmetic":
        assert fuse(plan_fusion([run], {"method": way}), models.load(str(tiny_base))).delta
        return
    expected = "trained_weights: cross_attention;" if way == "closed_form" else f"esd, which leaves no anchor for {way}"
    with pytest.raises(FusionError, match=f"'star' was erased with method.*{re.escape(expected)}"):
        plan_fusion([run], {"method": way})


# --- anchors that do not start at the concept


@pytest.mark.parametrize("start", ["own", "superclass", "similar"])
def test_a_guarded_anchor_is_made_again_from_where_it_started(tiny_base: Path, tmp_path: Path, start: str) -> None:
    """e_a = e_start + pad(e_adv), e_adv on the concept's token and, with one row, on all after it."""
    named: dict[str, Any] = {"start": start} | ({"start_concept": "circle"} if start == "similar" else {})
    run, base = (
        erase(tiny_base, tmp_path / "run", ("star",), name="guarded_anchor", **named),
        models.load(str(tiny_base)),
    )
    settings = FusionSettings(method="anchor_edit")
    member = finished(run, settings)["star"]
    e_adv = from_bytes(bytes(read_member(member)), "it")[0]["e_adv"]
    started = {
        "own": ["a star", "a red star"],
        "superclass": ["a shape", "a red shape"],
        "similar": ["a circle", "a red circle"],
    }
    e_c, e_a = (base.encode(prompts).prompt_embeds for prompts in (started["own"], started[start]))
    e_a = e_a.clone()
    for i, first in enumerate((2, 3)):  # begin of text, a, (red,) star
        e_a[i, first] += e_adv[0]
        e_a[i, first + 1 :] += e_adv[1]
    found = contribution(base, member, read_member(member), settings)
    assert e_adv.any() and close(dict(found), anchor_statistics(e_c[:, 1:].flatten(0, 1), e_a[:, 1:].flatten(0, 1)))
    grown = made(run, base, method="neurons").neurons
    goal = neurons.neuron_statistics(base, member.concept, e_a, FusionSettings().reach)
    assert close(
        {"v": made(run, base, method="neurons").totals["neurons"][f"{neurons.V}star"]},
        {"v": goal[f"{neurons.V}star"]},
        1e-4,
    )
    assert all(tensor.any() for tensor in grown.values())


def test_settings_that_say_nothing_of_where_an_anchor_started_are_refused(run: Path) -> None:
    method = finished(str(run), FusionSettings(method="neurons"))["star"].method
    assert WAYS["neurons"].problem(method) == ""
    assert "settings of another version: method.adv_anchor.start: " in WAYS["neurons"].problem(
        method | {"start": "moon"}
    )


# --- names


def test_names_may_hold_anything_and_neurons_keep_to_their_own(base: Base) -> None:
    """A concept's detector writes its own shift, whatever the others are called."""
    from advanchor.concepts import Concept
    from advanchor.fusion.statistics import accumulate

    names = ("AC", "AC/wolf", "X/v", "X/w", "X")
    totals: dict[str, torch.Tensor] = {}
    for name in names:
        concept = Concept(name=name, kind="identity", templates=("a {}",), neutral=("a shape",))
        goal = neurons.neutral_embeds(base, concept)
        accumulate(totals, neurons.neuron_statistics(base, concept, goal, reach=0))
    gram = (len(names) + neurons.PRIOR) * neurons.retained_gram(
        base, {"a blue shape": 1.0, "a red circle": 1.0, "": 1.0}
    )
    up, bias, down = neurons.solve_neurons(base, totals, gram, 1e-5, 0.5).values()
    for name in names:
        x, v = totals[neurons.X + name].float(), totals[neurons.V + name].float()
        scores = (x @ up[: len(names)].T + bias[: len(names)])[0] / neurons.STEEP + 0.5
        written = down[:, : len(names)].T * (neurons.STEEP * neurons.RAMP)
        own = [i for i in range(len(names)) if torch.allclose(written[i], v[0], rtol=1e-3, atol=1e-4)]
        assert len(own) == 1 and float(scores[own[0]]) == pytest.approx(1, abs=1e-3)
