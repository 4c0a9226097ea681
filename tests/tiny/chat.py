"""Bases whose prompts a chat model reads: Qwen-Image and Z-Image."""

from typing import Any

import diffusers
import tokens
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3Config, Qwen3Model

from advanchor.bench.published import backbone
from tiny.parts import vae_kl

D: Any = diffusers  # whose annotations are narrower than what it takes


def qwen_image() -> Any:
    t = tokens.qwen()
    cfg = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(t),
            "hidden_size": 192,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [8, 8, 8], "rope_type": "default", "type": "default"},
            "rope_theta": 1e6,
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 192},
    )
    enc = Qwen2_5_VLForConditionalGeneration(cfg)
    vae = D.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )
    tr = backbone("Qwen-Image", toy=True)
    pipeline = D.QwenImagePipeline(
        scheduler=D.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, shift_terminal=0.02, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192
        ),
        vae=vae,
        text_encoder=enc,
        tokenizer=t,
        transformer=tr,
    )
    pipeline.default_sample_size = 8
    return pipeline


def z_image() -> Any:
    t = tokens.qwen()
    enc = Qwen3Model(
        Qwen3Config(
            vocab_size=len(t),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    tr = backbone("Z-Image", toy=True)
    return D.ZImagePipeline(
        scheduler=D.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae_kl(16, 0.1159, 0.3611),
        text_encoder=enc,
        tokenizer=t,
        transformer=tr,
    )
