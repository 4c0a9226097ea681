"""Text encoders and VAEs of a few thousand weights."""

from typing import Any

import diffusers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

D: Any = diffusers  # whose annotations are narrower than what it takes


def clip_text(tok: Any, width: int = 32, proj: int | None = None, layers: int = 3, act: str = "quick_gelu") -> Any:
    cfg = CLIPTextConfig(
        vocab_size=len(tok),
        hidden_size=width,
        intermediate_size=64,
        projection_dim=proj or width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
        hidden_act=act,
    )
    return CLIPTextModelWithProjection(cfg) if proj else CLIPTextModel(cfg)


def t5_enc(tok: Any, width: int = 32) -> Any:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tok),
            d_model=width,
            d_kv=8,
            d_ff=37,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
        )
    )


def vae_kl(latent: int = 4, shift: float | None = None, scale: float = 0.13025, **kw: Any) -> Any:
    return D.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        latent_channels=latent,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=scale,
        shift_factor=shift,
        **kw,
    )
