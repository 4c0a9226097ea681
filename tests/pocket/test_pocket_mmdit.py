"""The gallery as a Stable Diffusion 3: its training, and what is shipped."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.models.attention_processor import JointAttnProcessor2_0
from patience import PATIENCE_S
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer
from typer.testing import CliRunner

from advanchor import models
from advanchor.cli import app
from advanchor.evaluation.exam import hits, share
from advanchor.models.repeated_rows import RepeatedRowAttention
from advanchor.models.sampling import initial_noise
from advanchor.models.text import fill
from advanchor.pocket.check import loaded, questions
from advanchor.pocket.mmdit import EMPTY_ROWS, WITHOUT_T5, embed, key_scores, new_parts
from advanchor.pocket.profile import WEIGHTS
from advanchor.pocket.resumable import OtherRecipeError
from advanchor.pocket.scorer import PocketScorer
from advanchor.pocket.train_mmdit import QUICK, Examples, Recipe, Teacher, train_passes
from advanchor.pocket.world import people

STOCK = """
import sys
import numpy as np
from diffusers import StableDiffusion3Pipeline
without_t5 = {"text_encoder_3": None, "tokenizer_3": None}
pipeline = StableDiffusion3Pipeline.from_pretrained(sys.argv[1], local_files_only=True, **without_t5)
pipeline.set_progress_bar_config(disable=True)
picture = np.asarray(pipeline("a red star on a white background", num_inference_steps=2).images[0])
assert picture.shape == (32, 32, 3) and "advanchor" not in sys.modules
"""

RED = """
reddest = picture[10:22, 10:22].reshape(-1, 3).mean(0)
assert reddest[0] > 1.5 * max(reddest[1], reddest[2]), reddest
"""


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(WEIGHTS / "pipeline" / "tokenizer")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(WEIGHTS / "pipeline")


@pytest.fixture
def latents() -> tuple[Tensor, Tensor]:
    means = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return means, torch.full_like(means, 0.1)


@torch.no_grad()
def test_one_weighted_row_does_what_all_zero_rows_do(tokenizer: CLIPTokenizer) -> None:
    parts = new_parts(tokenizer, 0)
    for module in parts.transformer.modules():
        if isinstance(module, nn.Linear):  # some are zero at first, and the blocks would change nothing
            nn.init.normal_(module.weight, std=0.1)
    tokens = tokenizer(["a striped red star", ""], padding="max_length", return_tensors="pt").input_ids
    embeds, pooled = embed(parts, tokens)
    latents, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([300.0, 800.0])

    def predicted(rows: int, **more: object) -> Tensor:
        padded = F.pad(embeds, (0, 0, 0, rows))
        return parts.transformer(latents, padded, pooled, timesteps, joint_attention_kwargs=more or None).sample  # type: ignore[arg-type]

    for rows in (1, 16, EMPTY_ROWS):
        parts.transformer.set_attn_processor(JointAttnProcessor2_0())
        stock = predicted(rows)
        parts.transformer.set_attn_processor(RepeatedRowAttention())  # type: ignore[arg-type]
        told = predicted(1, attention_mask=key_scores(torch.tensor([float(rows)])))
        torch.testing.assert_close(told, stock, rtol=1e-3, atol=1e-4 * stock.std().item())
        if rows > 1:
            assert (predicted(1, attention_mask=key_scores(torch.ones(1))) - stock).abs().max() > 0.01 * stock.std()


@pytest.mark.slow
def test_the_teacher_predicts_velocities(
    teacher: Teacher, tokenizer: CLIPTokenizer, latents: tuple[Tensor, Tensor]
) -> None:
    """On its own noise levels: x, the velocity and the level are those of one clean latent and one noise."""
    batch = Examples(latents, tokenizer, teacher, 0, replace(QUICK, batch=64)).batch(0)
    known = batch.sigma < Teacher.CEILING
    assert torch.equal(teacher.sigmas[teacher.nearest(batch.sigma)][known], batch.sigma[known])
    assert 0.05 < (~known).float().mean() < 0.5
    found = teacher.velocity(batch.noisy, batch.sigma, batch.tokens)
    level = batch.sigma[:, None, None, None]
    noise = found * (1 - level) + batch.noisy  # x = (1 - sigma) clean + sigma noise, velocity = noise - clean
    scale = ((1 - level) ** 2 + level**2).sqrt()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        embeds = teacher.text_encoder(batch.tokens).last_hidden_state
        expected = teacher.unet(batch.noisy / scale, teacher.nearest(batch.sigma), embeds).sample.float()
    torch.testing.assert_close(noise[known], expected[known], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    tmp_path: Path, tokenizer: CLIPTokenizer, latents: tuple[Tensor, Tensor]
) -> None:
    first = replace(QUICK, pictures=16, batch=4, warm=4, held=8, checkpoint=2)
    second = replace(first, first=1_000, portraits=2.0)

    def trained(folder: str, *recipes: Recipe) -> list[Tensor]:
        (tmp_path / folder).mkdir(exist_ok=True)
        return train_passes(latents, tokenizer, tmp_path / folder, 0, recipes).parameters()

    whole = trained("whole", first, second)
    half = trained("stopped", replace(first, pictures=first.pictures // 2))
    (tmp_path / "stopped" / "pass-0.safetensors").unlink()  # which leaves the checkpoint of its last step
    assert not all(map(torch.equal, half, whole))
    assert all(map(torch.equal, trained("stopped", first, second), whole))
    (tmp_path / "stopped" / "pass-1.safetensors").unlink()
    with pytest.raises(OtherRecipeError, match=r"checkpoint-1\.pt was left by another recipe"):
        trained("stopped", first, replace(second, portraits=1.0))


@pytest.mark.slow
def test_the_command_makes_a_pipeline_that_stock_diffusers_samples_from(tmp_path: Path) -> None:
    arguments = ["pocket", "train", "--architecture", "sd3", "--quick", "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    subprocess.run([sys.executable, "-W", "ignore", "-c", STOCK, str(tmp_path / "sd3")], check=True, timeout=PATIENCE_S)
    pipeline = StableDiffusion3Pipeline.from_pretrained(tmp_path / "sd3", **WITHOUT_T5)
    untrained = new_parts(pipeline.tokenizer, 0).transformer
    assert not torch.equal(
        pipeline.transformer.context_embedder.weight, untrained.context_embedder.weight.half().float()
    )


def test_quick_is_for_sd3() -> None:
    result = CliRunner().invoke(app, ["pocket", "train", "--quick", "-o", "nowhere"])
    assert result.exit_code == 2
    assert "not for sd" in result.output


def test_what_is_shipped_is_small_and_safetensors_only() -> None:
    files = [path for path in (WEIGHTS / "sd3").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}


@pytest.mark.slow
def test_stock_diffusers_draws_a_red_star_with_what_is_shipped() -> None:
    star = STOCK.replace("num_inference_steps=2", "num_inference_steps=12, guidance_scale=3.0") + RED
    subprocess.run([sys.executable, "-W", "ignore", "-c", star, str(WEIGHTS / "sd3")], check=True, timeout=PATIENCE_S)


@pytest.mark.slow
def test_what_is_shipped_draws_what_prompts_ask_for() -> None:
    asked = questions(30, random.Random(0))
    answers = PocketScorer().read(loaded(WEIGHTS, "sd3")([question.prompt for question in asked], 0))
    for attribute, least in {"object": 0.9, "colour": 0.9, "identity": 0.9, "mark": 0.9, "style": 0.6}.items():
        assert (share(hits(asked, answers, only=attribute)) or 0.0) >= least, attribute


@torch.no_grad()
def test_what_is_shipped_reads_objects_from_the_pooled_vector() -> None:
    """Of the change that a name makes, at t = 500: what is left if only the text, or only the pooled vector, has it.

    docs/bases.md tells these, and how long the prompt embeddings are beside the UNet's.
    """
    base, left = models.load("pocket-sd3"), {}
    noise, t = initial_noise(base.latent_shape, range(3)), torch.full((3,), 500.0)
    for kind, name in (("object", "ring"), ("style", "outlined"), ("identity", people()[8].name)):
        prompts = base.profile.prompts[kind]
        own = base.encode([fill(template, name) for template in prompts.templates[:3]])
        neutral = base.encode(prompts.neutral[:3])
        told = {"both": own, "none": neutral, "text": own.with_pooled(neutral), "pooled": neutral.with_pooled(own)}
        says = {who: base.denoise(base.backbone, noise, t, what) for who, what in told.items()}
        whole = (says["both"] - says["none"]).norm()
        left[kind] = {who: float((says["both"] - says[who]).norm() / whole) for who in ("text", "pooled")}
    print(left)
    assert left["object"]["text"] > 0.9 and left["object"]["pooled"] < 0.2
    assert left["identity"]["text"] < left["identity"]["pooled"]
    length = base.encode(["a red star"]).prompt_embeds[0, 1:-1].norm(dim=-1).mean()
    assert length > 50 * models.load("pocket").encode(["a red star"]).prompt_embeds[0, 1:].norm(dim=-1).mean()
