"""From a run directory to one model and back: what is read, refused, added, taken out, and loaded elsewhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner, Result

import advanchor
from advanchor import models
from advanchor.artifacts import ArtifactError, unpack
from advanchor.cli import app
from advanchor.concepts import Concept
from advanchor.fusion.artifact import Fusion, write_fused
from advanchor.fusion.retain import Retain, kept
from advanchor.fusion.solve import FusionSettings, closed_form
from advanchor.fusion.statistics import anchor_statistics, statistics
from advanchor.models.base import Base
from advanchor.plan import plan
from advanchor.runtime.fuse import FusionError, contribution, finished, fuse, plan_fusion
from advanchor.runtime.local import run_locally
from advanchor.runtime.store import Store
from advanchor.spec import parse_batch

NAMES = ("circle", "star", "someone")
METHOD = {
    "steps": 2, "anchor_steps": 2, "batch_size": 2, "num_latents": 2, "latent_steps": 2, "lr": 1e-2, "anchor_lr": 0.1,
}  # fmt: skip
RETAIN = Retain(prompts=("a blue shape", "a painting by a person"))


def erase(model: Path, folder: Path, names: tuple[str, ...] = NAMES, **method: Any) -> str:
    """A run directory with finished erasures of these concepts."""
    concepts = [
        {"name": name, "kind": "object", "templates": ["a {}", "a red {}"], "neutral": ["a shape", "a red shape"]}
        for name in names
    ]
    batch = {"model": str(model), "output": str(folder), "method": METHOD | method, "concepts": concepts}
    spec, listed = parse_batch(json.dumps(batch), folder / "batch.yaml")
    status = run_locally(spec, plan(spec, listed), Store(spec.output), lambda status: None)
    assert status.exit_code == 0
    return spec.output


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(erase(tiny_base, tmp_path_factory.mktemp("run")))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A run directory that a test may damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def made(run: Path | str, base: Base, *sources: str, **options: Any) -> Fusion:
    changes = {"method": options.pop("method")} if "method" in options else {}
    return fuse(plan_fusion([str(run), *sources], changes, RETAIN, **options), base)


def close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-6) -> bool:
    scale = max(float(tensor.abs().max()) for tensor in b.values())
    return a.keys() == b.keys() and all(float((a[k] - b[k]).abs().max()) <= tolerance * scale for k in b)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["fuse", *map(str, arguments)])


def task_files(run: Path, name: str, stem: str) -> list[Path]:
    return sorted(run.glob(f"tasks/{name}-*/{stem}-*.safetensors"))


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
    refused = command(run, "-o", tmp_path / "fused")
    assert refused.exit_code == 2 and "method.trained_weights: cross_attention;" in refused.stderr
    assert not (tmp_path / "fused").exists()
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
    keep = kept(base, RETAIN, concepts, FusionSettings())
    expected = closed_form(totals, keep.retained, keep.exactly, FusionSettings().ridge)
    assert close(made(run, base).delta, expected, 1e-5)


def test_a_run_of_before_statistics_is_fused_from_its_deltas(copied: Path, run: Path, base: Base) -> None:
    for path in copied.glob("tasks/*/result.json"):
        result = json.loads(path.read_text())
        result["files"].pop("statistics")
        path.write_text(json.dumps(result))
    assert close(made(copied, base).delta, made(run, base).delta, 1e-5)


def test_task_arithmetic_is_the_sum_of_the_deltas(run: Path, base: Base) -> None:
    deltas = [load_file(task_files(run, name, "delta")[0]) for name in NAMES]
    expected = {key: sum(delta[key].double() for delta in deltas).float() for key in deltas[0]}
    assert close(made(run, base, method="task_arithmetic").delta, expected)


def test_an_anchor_edit_reads_nothing_but_anchors(copied: Path, base: Base) -> None:
    for path in [*copied.glob("tasks/*/delta-*"), *copied.glob("tasks/*/statistics-*")]:
        path.unlink()
    fusion = made(copied, base, method="anchor_edit")
    assert any(tensor.any() for tensor in fusion.delta.values())
    members = finished(str(copied), "anchor_edit")
    e_adv = load_file(task_files(copied, "star", "anchor")[0])["e_adv"]
    embeds = base.encode(["a star", "a red star"]).prompt_embeds
    shifted = embeds.clone()
    shifted[0, 2] += e_adv[0]  # begin of text, a, star
    shifted[1, 3] += e_adv[0]
    found = contribution(base, members["star"], task_files(copied, "star", "anchor")[0].read_bytes(), "anchor_edit")
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
        fusion = fuse(plan_fusion([str(run)], {"empty": empty}, RETAIN), base)
        moved[empty] = max(float((dw @ null).norm() / (dw.norm() * null.norm())) for dw in fusion.delta.values())
    assert moved["exact"] < 1e-5 < 1e-4 < moved["weight"]


# --- changing a fusion


def test_a_concept_comes_and_goes_and_only_its_own_file_is_read(copied: Path, base: Base, tmp_path: Path) -> None:
    """The files of the concepts that stay are gone: whoever read them would fail."""
    both, alone = made(copied, base, only=["circle", "star"]), made(copied, base, only=["circle"])
    write_fused(both, tmp_path / "both")
    write_fused(alone, tmp_path / "alone")
    for path in copied.glob("tasks/circle-*/*.safetensors"):
        path.unlink()
    without = fuse(plan_fusion([str(tmp_path / "both")], without=["star"]), base)
    assert close(without.delta, alone.delta) and list(without.members) == ["circle"]
    assert without.totals.keys() == alone.totals.keys() and close(without.totals, alone.totals, 1e-12)
    added = fuse(plan_fusion([str(tmp_path / "alone"), str(copied)], only=["circle", "star"]), base)
    assert close(added.delta, both.delta) and not close(added.delta, alone.delta, 1e-2)


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


def test_a_concept_of_another_base_is_refused(copied: Path, base: Base) -> None:
    (path,) = copied.glob("tasks/star-*/result.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_digest": "0" * 64}))
    with pytest.raises(FusionError, match=r"'star'.*000000000000.*now has"):
        made(copied, base)


def test_of_two_results_for_a_concept_the_latest_batchs_counts(copied: Path, base: Base) -> None:
    erase(Path(base.name), copied, ("star",), lr=2e-2)
    assert len(list(copied.glob("tasks/star-*"))) == 2
    assert finished(str(copied), "closed_form")["star"].method["lr"] == 2e-2
    assert set(finished(str(copied), "closed_form")) == set(NAMES)


# --- the command


def test_the_command_writes_a_delta_that_stock_pipelines_take(run: Path, base: Base, tmp_path: Path) -> None:
    done = command(run, "-o", tmp_path / "fused", "--without", "someone", "--set", "ridge=0.01")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "fused" / "fused.json").read_text())
    assert [entry["concept"]["name"] for entry in content["concepts"]] == ["circle", "star"]
    assert content["settings"]["ridge"] == 0.01 and content["verdict"] is None
    expected, _ = unpack((tmp_path / "fused" / "delta.safetensors").read_bytes(), "it")
    before = {name: tensor.clone() for name, tensor in base.unet.named_parameters()}
    advanchor.apply(base.pipeline, tmp_path / "fused")
    after = dict(base.unet.named_parameters())
    assert all(torch.equal(after[name], before[name] + dw) and dw.any() for name, dw in expected.items())
    assert "2 concepts" in (tmp_path / "fused" / "report.html").read_text()


STOCK = """
import sys, numpy as np, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
torch.set_num_threads(1)
noise = torch.Generator().manual_seed(0)
images = pipeline("a star", num_inference_steps=3, generator=noise, output_type="np").images
assert "advanchor" not in sys.modules
np.save(sys.argv[2], images)
"""


def test_a_fused_pipeline_draws_the_same_in_stock_diffusers(run: Path, base: Base, tmp_path: Path) -> None:
    assert command(run, "-o", tmp_path / "fused", "--pipeline").exit_code == 0
    folder, picture = tmp_path / "fused" / "pipeline", tmp_path / "picture.npy"
    subprocess.run([sys.executable, "-W", "ignore", "-c", STOCK, folder, picture], check=True, timeout=120)
    base.pipeline.set_progress_bar_config(disable=True)

    def ours() -> np.ndarray:
        noise = torch.Generator().manual_seed(0)
        return base.pipeline("a star", num_inference_steps=3, generator=noise, output_type="np").images

    untouched = ours()
    advanchor.apply(base.pipeline, tmp_path / "fused")
    assert np.array_equal(np.load(picture), ours()) and not np.array_equal(ours(), untouched)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a name that is not there": (["--without", "strar"], "--without 'strar': not one of the 3 finished concepts"),
    "nothing left": (["--without", "star", "--without", "circle", "--without", "someone"], "no concept is left"),
    "an unknown setting": (["--set", "rigde=1"], "'rigde' is not one of method, retain_weight, ridge"),
    "a bad value": (["--set", "ridge=-1"], "--set ridge: -1:"),
    "a bad bar": (["--set", "bars.ua=2"], "--set bars.ua: 2:"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistakes_are_named_before_anything_is_written(run: Path, tmp_path: Path, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    done = command(run, "-o", tmp_path / "fused", *arguments)
    assert done.exit_code == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = command(run, "-o", tmp_path)
    assert done.exit_code == 2 and "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_retained_prompt_that_is_erased_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "retain.yaml").write_text("prompts: [a blue shape, a Red Star]\n")
    done = command(run, "-o", tmp_path / "fused", "--retain", tmp_path / "retain.yaml")
    assert done.exit_code == 2 and "retained prompt 'a Red Star' names 'star', which is erased" in done.stderr


def test_mistakes_in_retain_yaml_have_their_place(run: Path, tmp_path: Path) -> None:
    (tmp_path / "retain.yaml").write_text("presets: [generall]\ncuont: 3\n")
    done = command(run, "-o", tmp_path / "fused", "--retain", tmp_path / "retain.yaml")
    assert done.exit_code == 2 and "'generall' is not one of gallery/captions, general" in done.stderr
    assert "retain.yaml:2:1: cuont: 'cuont' is not one of prompts, presets, count, seed, exclude" in done.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = command(tmp_path, "-o", tmp_path / "fused")
    assert done.exit_code == 2 and "neither a run directory with finished tasks nor a fused model" in done.stderr
