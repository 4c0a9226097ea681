"""A real Stable Diffusion pipeline, tiny and random, that all tests share: the same classes, some 270,000 weights."""

import json
import os
from pathlib import Path
from typing import Any

import diffusers
import order
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from advanchor import models
from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.pocket.parts import new_scheduler
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

torch.set_num_threads(1)
os.environ["ADVANCHOR_CACHE"] = "off"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's 15 would let ranks starve beside other tests)
os.environ["OMP_NUM_THREADS"] = "1"  # of what tests start: several would spin, waiting for each other

stock: Any = diffusers  # whose annotations are narrower than what it takes
WIDTH, LENGTH, SIZE = 32, 16, 8  # of prompt embeddings, of prompts in tokens, of latents
CORPUS = (
    "a star", "a red star", "a blue circle", "a shape", "a red shape", "a blue shape", "a striped shape",
    "a painting by someone", "a portrait of a person", "starlight",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> order.ByFile:
    return order.ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    order.end_cluster_before(item)


def new_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair encoding; every word of CORPUS is one token, all others are several."""
    learner = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=1000, show_progress=False, initial_alphabet=alphabet, end_of_word_suffix="</w>", min_frequency=1
    )
    learner.train_from_iterator(CORPUS, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def new_text_encoder(tokenizer: Any) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def new_vae() -> AutoencoderKL:
    return stock.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=4 * SIZE,
    )


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    )


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = new_tokenizer()
    stock.StableDiffusionPipeline(
        vae=new_vae(),
        text_encoder=new_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=new_unet(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the finished erasures that fusions are made of."""
    import fusing

    return Path(fusing.erase(tiny_base, tmp_path_factory.mktemp("run")))


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return models.load(str(tiny_base))


@pytest.fixture
def concept() -> Concept:
    """A name of several tokens, at the start of one template and at the end of the other."""
    templates, neutral = ("{} star", "a portrait of {}"), ("a person star", "a portrait of a person")
    return Concept(name="Mira Vos", kind="identity", templates=templates, neutral=neutral)


@pytest.fixture
def context(base: Base, concept: Concept) -> Context:
    delta = Delta(base.backbone, "cross_attention_kv")
    context = Context(base, TorchEngine(base.backbone, delta.named_parameters()), delta, [concept], [0])
    context.engine.reset(lr=1e-3)
    return context
