"""Repairs: the student starts at the fused delta, and a repaired concept can still be taken out."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fusing
import pytest
import tiny
import torch
from fusing import NAMES, close, made

from advanchor import methods, models
from advanchor.artifacts import ArtifactError, delta_to_bytes, sha256
from advanchor.bench import joint
from advanchor.fusion.artifact import Fusion, write_fused
from advanchor.fusion.fuse import fuse, plan_fusion
from advanchor.fusion.gate import Bars, Gate
from advanchor.fusion.member import FusionError
from advanchor.fusion.repair import STRONGER, Tune, repair
from advanchor.fusion.sources import finished
from advanchor.fusion.statistics import GRAM, POOLED
from advanchor.fusion.ways import FusionSettings
from advanchor.methods import continue_from, guarded_anchor
from advanchor.methods.adv_anchor import Settings
from advanchor.models.base import Base
from advanchor.rundir.status import RunStatus
from advanchor.runtime.place import Place
from advanchor.runtime.rehearsal import RehearsalCluster
from advanchor.runtime.repairs import tuner
from advanchor.training.context import Context
from advanchor.training.projection import token_embeds

QUICK = Settings(steps=2, anchor_steps=2, batch_size=2, num_latents=2, latent_steps=2, lr=1e-2, anchor_lr=0.1)


class Ruler(Gate):
    """Judges by how far the concept's first key moved, as a share of `wanted`; draws no pictures."""

    def __init__(self, base: Base, wanted: dict[str, float]) -> None:
        self.base, self.wanted, self.bars = base, wanted, Bars()

    def verdict(self, fusion: Fusion) -> dict[str, Any]:
        rows = []
        for name in fusion.members:
            share = moved(self.base, fusion, name) / self.wanted[name]
            rows.append({"name": name, "kind": "object", "ua": min(share, 1.0), "passed": share >= self.bars.ua})
        return {"bars": self.bars.model_dump(), "concepts": rows, "retained": [], "passed": False}


def moved(base: Base, fusion: Fusion, name: str) -> float:
    tokens = token_embeds(base.encode([f"a {name}", f"a red {name}"]).prompt_embeds).float()
    return float((next(iter(fusion.delta.values())) @ tokens).norm())


def start_file(delta: dict[str, torch.Tensor], folder: Path) -> dict[str, Any]:
    (folder / "start.safetensors").write_bytes(delta_to_bytes(delta, delta, {}))
    data = (folder / "start.safetensors").read_bytes()
    return {"start": str(folder / "start.safetensors"), "start_sha256": sha256(data)}


def test_the_student_starts_at_the_given_delta(context: Context, tmp_path: Path) -> None:
    """With a vanishing learning rate it also ends there; with another it does not. No other file is taken for it."""
    start = {name: torch.randn(p.shape[1:]) * 0.01 for name, p in context.delta.named_parameters().items()}
    where = start_file(start, tmp_path)

    def retuned(lr: float, **changes: Any) -> dict[str, torch.Tensor]:
        settings = continue_from.Settings(lr=lr, method=QUICK, round=1, **where | changes)
        (erasure,) = methods.erase(context, settings)
        return erasure.delta

    assert close(retuned(1e-12), start, 1e-5)
    assert not close(retuned(1e-2), start, 1e-2)
    with pytest.raises(ArtifactError, match="sha256 differs"):
        retuned(1e-2, start_sha256="0" * 64)


def tune_here(folder: Path) -> Tune:
    return tuner(folder, Place(local=True), lambda status: None, print)


def test_only_what_fails_is_tuned_again_and_it_can_still_leave(run: Path, base: Base, tmp_path: Path) -> None:
    fusion = made(run, base)
    wanted = {name: moved(base, fusion, name) * (1.5 if name == "star" else 0.5) for name in fusion.members}
    gate = Ruler(base, wanted)
    fusion.verdict = gate.verdict(fusion)
    folder = tmp_path / "fused"
    better, files = repair(fusion, gate, folder, tune_here(tmp_path / "work"), print)
    assert better is not fusion and better.verdict is not None
    assert all(path.startswith("repairs/star-") for path in files) and len(files) == 1
    assert moved(base, better, "star") > 1.05 * moved(base, fusion, "star")
    write_fused(better, folder, more=files)
    without = fuse(plan_fusion([str(folder)], without=["star"]), base)
    assert close(without.delta, made(run, base, without=["star"]).delta, 1e-4)


def test_concepts_are_repaired_side_by_side_on_gangs(
    run: Path, base: Base, cluster: RehearsalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advanchor.runtime.ray_cluster.connected", lambda *_, **__: nullcontext())  # it already is
    fusion, failing, seen = made(run, base), ("star", "circle"), []
    wanted = {name: moved(base, fusion, name) * (1.2 if name in failing else 0.5) for name in fusion.members}
    gate = Ruler(base, wanted)
    fusion.verdict = gate.verdict(fusion)

    def view(status: RunStatus) -> None:
        seen.append((len(status.tasks), status.wanted_gangs))

    tune = tuner(tmp_path / "work", Place(), view, print)
    better, files = repair(fusion, gate, tmp_path / "fused", tune, print)
    # Both are tasks of one run that has room for two gangs. How many are ready at once is up to the machine.
    assert any(tasks == 2 and gangs >= 2 for tasks, gangs in seen) and better is not fusion
    assert {path.removeprefix("repairs/").partition("-")[0] for path in files} == set(failing)
    assert all(moved(base, better, name) > 1.05 * moved(base, fusion, name) for name in failing)


def test_a_round_that_brings_nothing_is_forgotten(run: Path, base: Base, tmp_path: Path) -> None:
    fusion = made(run, base)

    class Never(Ruler):
        def verdict(self, fusion: Fusion) -> dict[str, Any]:
            rows = [{"name": name, "kind": "object", "ua": 0.0, "passed": False} for name in fusion.members]
            return {"bars": self.bars.model_dump(), "concepts": rows, "retained": [], "passed": False}

    gate = Never(base, {})
    fusion.verdict = gate.verdict(fusion)
    before = {name: tensor.clone() for name, tensor in fusion.totals["closed_form"].items()}
    same, files = repair(fusion, gate, tmp_path / "fused", tune_here(tmp_path / "work"), print)
    assert same is fusion and not files
    assert all(torch.equal(tensor, before[name]) for name, tensor in fusion.totals["closed_form"].items())


def test_in_a_sum_what_fails_counts_for_more_and_can_still_leave(run: Path, base: Base, tmp_path: Path) -> None:
    fusion = made(run, base, method="task_arithmetic")
    wanted = {name: moved(base, fusion, name) * (1.4 if name == "star" else 0.5) for name in fusion.members}
    gate = Ruler(base, wanted)
    fusion.verdict = gate.verdict(fusion)
    better, files = repair(fusion, gate, tmp_path / "fused", tune_here(tmp_path / "work"), print)
    scales = {name: member.scale for name, member in better.members.items()}
    assert scales["star"] >= STRONGER and {scales["circle"], scales["someone"]} == {1.0} and not files
    assert better.verdict is not None and all(row["passed"] for row in better.verdict["concepts"])
    deltas = {name: made(run, base, method="task_arithmetic", only=[name]).delta for name in scales}
    expected = {key: torch.stack([scales[name] * deltas[name][key] for name in deltas]).sum(0) for key in better.delta}
    assert close(better.delta, expected)
    write_fused(better, tmp_path / "fused")
    again = fuse(plan_fusion([str(tmp_path / "fused"), str(run)]), base)  # the run brings nothing new
    assert close(again.delta, better.delta) and again.members == better.members
    without = fuse(plan_fusion([str(tmp_path / "fused")], without=["star"]), base)
    assert close(without.delta, made(run, base, method="task_arithmetic", without=["star"]).delta, 1e-5)


def test_without_training_what_can_be_is_made_stronger(run: Path, base: Base, tmp_path: Path) -> None:
    """A sum of the objects, where one falls short; the person, who falls short as well, by the closed form."""
    changes = {"method": "task_arithmetic", "method_by_kind": {"identity": "closed_form"}}
    fusion = fuse(plan_fusion([str(run)], changes), base)
    shares = {"star": 1.2, "circle": 0.5, "someone": 9.0}
    gate = Ruler(base, {name: moved(base, fusion, name) * share for name, share in shares.items()})
    fusion.verdict = gate.verdict(fusion)
    better, files = repair(fusion, gate, tmp_path, None, print)
    assert better.members["star"].scale >= STRONGER and better.members["someone"] == fusion.members["someone"]
    assert better.verdict is not None and not files
    assert {row["name"] for row in better.verdict["concepts"] if not row["passed"]} == {"someone"}
    shared = made(run, base, method="anchor_edit")
    shared.verdict = Ruler(base, dict.fromkeys(shared.members, 1e9)).verdict(shared)
    assert repair(shared, gate, tmp_path, None, print) == (shared, {})


def test_what_is_shared_cannot_be_repaired(run: Path, base: Base, tmp_path: Path) -> None:
    with pytest.raises(FusionError, match="anchor_edit"):
        repair(made(run, base, method="anchor_edit"), Ruler(base, {}), tmp_path, tune_here(tmp_path), print)


def test_what_was_not_trained_cannot_be_tuned_again(run: Path, base: Base, tmp_path: Path) -> None:
    fusion = made(run, base)
    star = fusion.members["star"]
    fusion.members["star"] = star.model_copy(update={"method": {"name": "uce"}})
    with pytest.raises(FusionError, match="'star' was erased by uce, which trains nothing"):
        repair(fusion, Ruler(base, {}), tmp_path, tune_here(tmp_path), print)


def test_a_projection_does_not_change_where_the_student_starts(context: Context, tmp_path: Path) -> None:
    start = {name: torch.randn(p.shape[1:]) * 0.01 for name, p in context.delta.named_parameters().items()}
    inner = guarded_anchor.Settings(
        steps=2, anchor_steps=2, batch_size=2, num_latents=2, latent_steps=2, retain_prompts=20
    )
    settings = continue_from.Settings(lr=1e-12, method=inner, round=1, **start_file(start, tmp_path))
    (erasure,) = methods.erase(context, settings)
    assert close(erasure.delta, start, 1e-5)


def test_what_all_readers_of_an_mmdit_learned_is_tuned_again_and_trained_jointly(tmp_path: Path) -> None:
    """The pooled vector's reader included; anchors that are learned there, too, are taken up as they were found."""
    torch.manual_seed(0)
    tiny.BUILD["sd3_without_t5"]().save_pretrained(tmp_path / "base")
    pooled: dict[str, Any] = {"trained_weights": "readers", "perturb_pooled": "learn"}
    erased = fusing.erase(tmp_path / "base", tmp_path / "run", NAMES[:2], **pooled)
    sd3 = models.load(str(tmp_path / "base"))
    fusion = made(erased, sd3)
    assert fusion.delta.keys() == {f"{name}.weight" for group in sd3.readers.values() for name in group}
    found = tune_here(tmp_path / "work")(fusion, [fusion.members["star"]], 1)
    assert found.keys() == {"star"} and {GRAM, f"{POOLED}{GRAM}", *fusion.delta} == found["star"].keys()
    together = joint.train(sd3, [*finished(erased, FusionSettings(method="anchor_edit")).values()], passes=1)
    assert together.keys() == fusion.delta.keys() and all(tensor.any() for tensor in together.values())
