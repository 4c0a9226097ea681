"""A base is known by what it is: whatever it is called, its prompts, retained prompts and scorer are the same."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

import advanchor
from advanchor import models
from advanchor.batch.file import parse_batch
from advanchor.batch.plan import make_task, plan
from advanchor.batch.spec import BatchSpec
from advanchor.concepts import Concept
from advanchor.evaluation.scorers import is_scored, scorer_for
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods import guarded_anchor
from advanchor.models.digests import folder_digest
from advanchor.models.profile import GENERAL, profile_of
from advanchor.pocket.profile import PROFILE

POCKET = models.resolve("pocket")
STAR = Concept(name="star", kind="object")
QUICK = guarded_anchor.Settings(steps=1, batch_size=1, num_latents=1, latent_steps=2, anchor_steps=0, retain_prompts=40)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket's pipeline under another name."""
    return Path(shutil.copytree(POCKET, tmp_path_factory.mktemp("models") / "not-called-so"))


def test_the_pocket_by_name_and_by_path_is_one_base(copy: Path) -> None:
    tasks = []
    for name in ("pocket", str(POCKET), str(copy)):
        spec = BatchSpec(model=name, method=QUICK, concepts=(STAR,))
        digest = folder_digest(models.resolve(name))
        tasks.append(make_task(spec, STAR.with_prompts(models.default_prompts(name)), digest))
    assert len({task.id for task in tasks}) == 1
    assert {task.profile for task in tasks} == {PROFILE.digest}


def test_a_pipeline_in_memory_is_known_by_its_weights(copy: Path) -> None:
    deltas = []
    for folder in (POCKET, copy):
        pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, low_cpu_mem_usage=False)
        erased = advanchor.erase(pipeline, STAR, QUICK)
        assert erased.metadata["profile"] == PROFILE.to_json()
        deltas.append(erased.erasure.delta)
    assert all(torch.equal(deltas[0][name], deltas[1][name]) for name in deltas[0])
    assert any(bool(tensor.any()) for tensor in deltas[0].values())


def test_the_gallery_as_sd3_has_the_gallery_s_world() -> None:
    base = models.load("pocket-sd3")
    assert base.profile is PROFILE and base.trained_weights == ["readers", "text_kv", "pooled"]
    scorer = scorer_for(base, EvaluationSettings())
    assert scorer is not None and scorer.exam("star", 2).attribute == "object"
    read = parse_batch("model: pocket-sd3\nconcepts: [{name: star, kind: object}]\n", Path("batch.yaml"))
    (task,) = plan(read.spec, read.concepts)
    assert task.concept.templates == PROFILE.prompts["object"].templates and task.method.trained_weights == "readers"
    assert task.profile == PROFILE.digest and task.base_digest == base.digest != folder_digest(POCKET)


def test_one_changed_weight_makes_another_base(copy: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(copy, tmp_path / "pocket"))
    config = changed / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert profile_of(folder_digest(changed)) is GENERAL
    base = models.load(str(changed))
    assert base.profile is GENERAL and scorer_for(base) is None


def test_a_base_without_a_profile_has_general_prompts_and_no_scorer(tiny_base: Path) -> None:
    base = models.load(str(tiny_base))
    assert base.profile is GENERAL and models.default_prompts(str(tiny_base)) == GENERAL.prompts
    assert not is_scored(base.digest, EvaluationSettings())
    assert is_scored(folder_digest(POCKET), EvaluationSettings())


def test_a_profile_s_prompts_and_captions_decide_its_digest() -> None:
    assert len({PROFILE.digest, GENERAL.digest}) == 2
    other = type(GENERAL)(
        GENERAL.name, {**GENERAL.prompts, "style": PROFILE.prompts["style"]}, "general", GENERAL.sample
    )
    retold = type(GENERAL)(GENERAL.name, GENERAL.prompts, "general", PROFILE.sample)
    assert len({GENERAL.digest, other.digest, retold.digest}) == 3
