"""Transformers whose cross-attention reads the prompt: PixArt-Sigma and Sana."""

from typing import Any

import diffusers
import tokens
from transformers import Gemma2Config, Gemma2Model

from advanchor.bench.published import backbone
from tiny.parts import t5_enc, vae_kl

D: Any = diffusers  # whose annotations are narrower than what it takes


def pixart() -> Any:
    t = tokens.t5(300)
    tr = backbone("PixArt-Sigma", toy=True)
    sched = D.DPMSolverMultistepScheduler(
        beta_start=0.0001, beta_end=0.02, beta_schedule="linear", algorithm_type="dpmsolver++", use_lu_lambdas=False
    )
    return D.PixArtSigmaPipeline(tokenizer=t, text_encoder=t5_enc(t), vae=vae_kl(), transformer=tr, scheduler=sched)


def sana() -> Any:
    t: Any = tokens.gemma()
    enc = Gemma2Model(
        Gemma2Config(
            vocab_size=len(t),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=t.pad_token_id,
        )
    )
    vae = D.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    tr = backbone("Sana-1.6B", toy=True)
    sched = D.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return D.SanaPipeline(tokenizer=t, text_encoder=enc, vae=vae, transformer=tr, scheduler=sched)
