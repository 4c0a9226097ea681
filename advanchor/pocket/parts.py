"""The untrained parts of the pocket gallery's pipeline, each an ordinary class of diffusers or transformers."""

import json
from collections.abc import Sequence
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from advanchor.pocket.world import SIZE

# `make: Any`: the libraries' own annotations take no tuple of several blocks and no list of merges.

MAX_LENGTH = 16  # tokens of a prompt
WIDTH = 256  # of the text embeddings


def new_tokenizer(corpus: Sequence[str]) -> CLIPTokenizer:
    """Byte-pair encoding in CLIP's form, learned from a corpus: every frequent word becomes one token."""
    learner = CLIPTokenizer().backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=2_000,
        min_frequency=50,
        show_progress=False,
        initial_alphabet=ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    learner.train_from_iterator(corpus, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    make: Any = CLIPTokenizer
    return make(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    make: Any = CLIPTextConfig
    config = make(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def new_unet() -> UNet2DConditionModel:
    make: Any = UNet2DConditionModel
    return make(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def new_vae() -> AutoencoderKL:
    make: Any = AutoencoderKL
    return make(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
    )
