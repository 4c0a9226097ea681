"""From a run directory to one model and back: what is read, refused, added, taken out, and loaded elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fusing import NAMES, RETAIN, close, erase, made
from safetensors.torch import load_file
from torch import Tensor

import advanchor
from advanchor import models
from advanchor.artifacts import ArtifactError, sha256
from advanchor.bench import joint
from advanchor.bench.fusion import edit_called
from advanchor.concepts import Concept
from advanchor.fusion.artifact import Fusion, write_fused
from advanchor.fusion.fuse import contribution, fuse, plan_fusion
from advanchor.fusion.member import FusionError
from advanchor.fusion.retained import Retained
from advanchor.fusion.sources import finished, read_ahead, results_of
from advanchor.fusion.statistics import anchor_statistics, statistics
from advanchor.fusion.ways import FusionSettings
from advanchor.fusion.ways.closed_form import closed_form
from advanchor.models.base import Base


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A run directory that a test may damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def task_files(run: Path, name: str, stem: str) -> list[Path]:
    return sorted(run.glob(f"tasks/{name}-*/{stem}-*.safetensors"))


def test_members_come_in_order_however_many_are_read_ahead(run: Path, base: Base) -> None:
    """Their files are read into memory that is used again: each is there in full when its turn has come."""
    members = list(finished(str(run), FusionSettings(method="closed_form")).values()) * 4
    for member, (came, data) in zip(members, read_ahead(members), strict=True):
        assert came == member and sha256(bytes(data)) == member.sha256
    with pytest.raises(ArtifactError, match="damaged"):
        list(read_ahead([*members, members[0].model_copy(update={"sha256": "0" * 64})]))


# --- statistics


def test_a_worker_leaves_the_statistics_of_what_it_trained(run: Path, base: Base) -> None:
    for name in NAMES:
        (delta,), (found,) = task_files(run, name, "delta"), task_files(run, name, "statistics")
        embeds = base.encode([f"a {name}", f"a red {name}"]).prompt_embeds
        expected = statistics(load_file(delta), embeds)
        assert any(tensor.any() for tensor in load_file(delta).values())
        assert close(load_file(found), expected)


def test_a_new_evaluation_keeps_the_statistics(copied: Path, base: Base) -> None:
    """Scores that are made again publish the task's files again, and must not lose one."""
    (path,) = copied.glob("tasks/star-*/result.json")
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"scores_key": "another"}))
    erase(Path(base.name), copied, ("star",))
    assert json.loads(path.read_text())["files"]["statistics"] == result["files"]["statistics"]


def test_other_weights_leave_no_statistics_and_are_refused_by_the_setting(tiny_base: Path, tmp_path: Path) -> None:
    run = erase(tiny_base, tmp_path / "run", ("star",), trained_weights="cross_attention")
    assert not task_files(Path(run), "star", "statistics") and task_files(Path(run), "star", "delta")
    with pytest.raises(FusionError, match=r"method\.trained_weights: cross_attention;"):
        plan_fusion([run], {"method": "closed_form"})
    assert fuse(plan_fusion([run], {"method": "task_arithmetic"}), models.load(str(tiny_base))).delta


# --- fusing


def test_streaming_gives_what_all_in_memory_gives(run: Path, base: Base) -> None:
    totals: dict[str, Tensor] = {}
    concepts = []
    for name in NAMES:
        concept = Concept(name=name, kind="object", templates=("a {}", "a red {}"), neutral=("a shape", "a red shape"))
        delta = load_file(task_files(run, name, "delta")[0])
        found = statistics(delta, base.encode([f"a {name}", f"a red {name}"]).prompt_embeds)
        totals = {key: totals.get(key, 0) + value.double() for key, value in found.items()}
        concepts.append(concept)
    retained = Retained(base, RETAIN, concepts, FusionSettings())
    expected = closed_form(totals, retained.gram(len(concepts)), retained.exactly(), FusionSettings().ridge)
    assert close(made(run, base).delta, expected, 1e-5)


def test_a_run_of_before_statistics_is_fused_from_its_deltas(copied: Path, run: Path, base: Base) -> None:
    for path in copied.glob("tasks/*/result.json"):
        result = json.loads(path.read_text())
        result["files"].pop("statistics")
        path.write_text(json.dumps(result))
    assert close(made(copied, base).delta, made(run, base).delta, 1e-5)


def test_task_arithmetic_is_the_sum_of_the_deltas(run: Path, base: Base) -> None:
    deltas = [load_file(task_files(run, name, "delta")[0]) for name in NAMES]
    expected = {key: torch.stack([delta[key].double() for delta in deltas]).sum(0).float() for key in deltas[0]}
    assert close(made(run, base, method="task_arithmetic").delta, expected)


def test_a_scale_in_a_benchs_label_is_what_every_delta_counts_for(run: Path, base: Base) -> None:
    """The bench's own row without one thins them out by the square root of how many there are."""
    summed = made(run, base, method="task_arithmetic").delta
    concepts = [found.concept for found in results_of(str(run)).values()]
    for label, scale in (("task_arithmetic, scale=0.5", 0.5), ("task_arithmetic", len(NAMES) ** -0.5)):
        before = {name: base.backbone.get_parameter(name).clone() for name in summed}
        with edit_called(label)(base, str(run), concepts, RETAIN):
            found = {name: base.backbone.get_parameter(name) - weight for name, weight in before.items()}
        assert close(found, {name: scale * total for name, total in summed.items()}, 1e-4)


def test_a_bench_label_runs_the_fused_text_encoder_in_half_precision_and_gives_it_back(run: Path, base: Base) -> None:
    concepts = [found.concept for found in results_of(str(run)).values()]
    prompts = ["a star", "a red circle"]
    before = base.encode(prompts).prompt_embeds
    with edit_called("neurons")(base, str(run), concepts, RETAIN):
        whole = base.encode(prompts).prompt_embeds
    with edit_called("neurons, half")(base, str(run), concepts, RETAIN):
        assert base.encoders[0].module.dtype == torch.float16
        half = base.encode(prompts).prompt_embeds
    assert 0 < (half - whole).abs().max() < 0.1 * (whole - before).abs().max()
    assert torch.equal(base.encode(prompts).prompt_embeds, before)


def test_an_anchor_edit_reads_nothing_but_anchors(copied: Path, base: Base) -> None:
    for path in [*copied.glob("tasks/*/delta-*"), *copied.glob("tasks/*/statistics-*")]:
        path.unlink()
    fusion = made(copied, base, method="anchor_edit")
    assert any(tensor.any() for tensor in fusion.delta.values())
    members = finished(str(copied), FusionSettings(method="anchor_edit"))
    e_adv = load_file(task_files(copied, "star", "anchor")[0])["e_adv"]
    embeds = base.encode(["a star", "a red star"]).prompt_embeds
    shifted = embeds.clone()
    shifted[0, 2] += e_adv[0]  # begin of text, a, star
    shifted[1, 3] += e_adv[0]
    data = task_files(copied, "star", "anchor")[0].read_bytes()
    found = contribution(base, members["star"], data, FusionSettings(method="anchor_edit"))
    assert close(dict(found), anchor_statistics(embeds, shifted))


def test_the_first_position_keeps_its_keys_and_values(run: Path, base: Base) -> None:
    first = base.encode([""]).prompt_embeds[0, 0]
    for method in ("closed_form", "anchor_edit"):
        fusion = made(run, base, method=method)
        assert all((dw @ first).norm() < 1e-5 * dw.norm() * first.norm() for dw in fusion.delta.values())
    untreated = made(run, base, method="task_arithmetic").delta
    assert any((dw @ first).norm() > 1e-3 * dw.norm() * first.norm() for dw in untreated.values())


def test_the_empty_prompt_is_kept_exactly_if_asked(run: Path, base: Base) -> None:
    null = base.encode([""]).prompt_embeds[0].T
    moved = {}
    for empty in ("exact", "weight"):
        fusion = fuse(plan_fusion([str(run)], {"method": "closed_form", "empty": empty}, RETAIN), base)
        moved[empty] = max(float((dw @ null).norm() / (dw.norm() * null.norm())) for dw in fusion.delta.values())
    assert moved["exact"] < 1e-5 < 1e-4 < moved["weight"]


# --- changing a fusion


@pytest.mark.parametrize("method", ["closed_form", "neurons"])
def test_a_concept_comes_and_goes_and_only_its_own_file_is_read(
    copied: Path, base: Base, tmp_path: Path, method: str
) -> None:
    """The files of the concepts that stay are gone: whoever read them would fail."""
    both, alone = (made(copied, base, method=method, only=names) for names in (["circle", "star"], ["circle"]))
    write_fused(both, tmp_path / "both")
    write_fused(alone, tmp_path / "alone")
    for path in copied.glob("tasks/circle-*/*.safetensors"):
        path.unlink()
    without = fuse(plan_fusion([str(tmp_path / "both")], without=["star"]), base)
    assert same(without, alone) and list(without.members) == ["circle"]
    assert list(without.totals) == [method] and close(without.totals[method], alone.totals[method], 1e-12)
    added = fuse(plan_fusion([str(tmp_path / "alone"), str(copied)], only=["circle", "star"]), base)
    assert same(added, both) and not same(added, alone)


def same(a: Fusion, b: Fusion) -> bool:
    return all(x.keys() == y.keys() and (not x or close(x, y)) for x, y in ((a.delta, b.delta), (a.neurons, b.neurons)))


def test_each_kind_by_a_method_of_its_own_is_both_in_one_model(run: Path, base: Base, tmp_path: Path) -> None:
    """Deltas of the object summed, the person as neurons; a stock pipeline gets both, and either can be taken out."""
    mixed = FusionSettings(method="task_arithmetic", method_by_kind={"identity": "neurons"})
    both = fuse(plan_fusion([str(run)], mixed.model_dump(), RETAIN), base)
    objects = made(run, base, method="task_arithmetic", only=["circle", "star"])
    person = made(run, base, method="neurons", only=["someone"])
    assert close(both.delta, objects.delta) and close(both.neurons, person.neurons, 0.2)
    write_fused(both, tmp_path / "both")
    without = fuse(plan_fusion([str(tmp_path / "both")], without=["someone"]), base)
    assert close(without.delta, objects.delta) and not without.neurons and list(without.totals) == ["task_arithmetic"]
    pipeline, prompts = models.load(base.name).pipeline, ["someone", "a star"]
    advanchor.apply(pipeline, tmp_path / "both")
    with both.on(base):
        expected = base.encode(prompts).prompt_embeds
        weights = {name: base.backbone.get_parameter(name).clone() for name in both.delta}
    applied = models.of_pipeline(pipeline, name="applied")
    torch.testing.assert_close(applied.encode(prompts).prompt_embeds, expected)
    assert all(torch.equal(applied.backbone.get_parameter(name), weight) for name, weight in weights.items())


def test_joint_training_moves_every_concept_and_leaves_the_base_alone(run: Path, base: Base) -> None:
    before = {name: tensor.clone() for name, tensor in base.backbone.state_dict().items()}
    members = finished(str(run), FusionSettings(method="anchor_edit"))
    delta = joint.train(base, [members["circle"], members["star"]], passes=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.backbone.state_dict().items())
    assert delta.keys() == made(run, base).delta.keys() and all(tensor.any() for tensor in delta.values())
    assert not close(joint.train(base, [members["circle"]], passes=2), delta, 1e-2)


def test_a_damaged_file_is_refused_by_name(copied: Path, base: Base) -> None:
    (path,) = task_files(copied, "star", "statistics")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=rf"{path.name}.*'star'.*damaged"):
        made(copied, base)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"missing"):
        made(copied, base)


def test_damaged_totals_are_refused(run: Path, base: Base, tmp_path: Path) -> None:
    write_fused(made(run, base), tmp_path / "fused")
    path = tmp_path / "fused" / "totals.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"totals.*damaged"):
        plan_fusion([str(tmp_path / "fused")])


def test_a_fusion_of_another_version_is_applied_but_not_changed(run: Path, base: Base, tmp_path: Path) -> None:
    """Before formats had numbers, there was none in fused.json."""
    write_fused(made(run, base), tmp_path / "fused")
    content = json.loads((tmp_path / "fused" / "fused.json").read_text())
    assert content.pop("format") == 2
    for found, named in ((content, "format 1, not 2"), (content | {"format": 3}, "format 3, not 2")):
        (tmp_path / "fused" / "fused.json").write_text(json.dumps(found))
        with pytest.raises(ArtifactError, match=rf"fused by another version.*{named}.*fuse its runs again"):
            plan_fusion([str(tmp_path / "fused")])
    advanchor.apply(models.load(base.name).pipeline, tmp_path / "fused")


def test_a_concept_of_another_base_is_refused(copied: Path, base: Base) -> None:
    (path,) = copied.glob("tasks/star-*/result.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_digest": "0" * 64}))
    with pytest.raises(FusionError, match=r"'star'.*000000000000.*now has"):
        made(copied, base)


def test_of_two_results_for_a_concept_the_latest_batchs_counts(copied: Path, base: Base) -> None:
    erase(Path(base.name), copied, ("star",), lr=2e-2)
    assert len(list(copied.glob("tasks/star-*"))) == 2
    found = finished(str(copied), FusionSettings(method="closed_form"))
    assert found["star"].method["lr"] == 2e-2 and set(found) == set(NAMES)
