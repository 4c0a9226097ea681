"""Every base's backbone in its published shape, and in a toy's: for measuring time and memory, and for tests.

Configurations: the published unet/config.json of Stable Diffusion 1.4 and SDXL; diffusers' defaults, which are
FLUX.1's, FLUX.2-dev's, Qwen-Image's, Z-Image's and Sana's; of the others as huggingface/diffusers'
scripts/convert_*.py make them. Nothing is downloaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
from torch import nn

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """A base's backbone and what it is told."""

    pipeline: str  # the class in model_index.json
    backbone: str
    weights: float  # of the backbone, in millions
    tokens: int  # of a prompt
    width: str  # the configuration's field for the width of prompt embeddings
    config: Config = field(default_factory=dict)
    toy: Config = field(default_factory=dict)  # what differs in a toy
    pooled: str = ""  # likewise, of pooled embeddings
    masked: bool = False
    scale: int = 8  # pixels of a latent's side


UNET_TOY: Config = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}
SD14 = Published(
    "StableDiffusionPipeline",
    "UNet2DConditionModel",
    859.5,
    77,
    "cross_attention_dim",
    {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    {**UNET_TOY, "cross_attention_dim": 32, "attention_head_dim": 2},
)
SDXL = Published(
    "StableDiffusionXLPipeline",
    "UNet2DConditionModel",
    2567.5,
    77,
    "cross_attention_dim",
    {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 1280,
    },
    {
        **UNET_TOY,
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 32 + 48,
        "attention_head_dim": (2, 4),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 48,
    },
    pooled="projection_class_embeddings_input_dim",
)

SD3_CONFIG: Config = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
SD3_TOY: Config = {
    "sample_size": 8,
    "patch_size": 1,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "joint_attention_dim": 384,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 32 + 48,
    "pos_embed_max_size": 96,
}


def sd3(weights: float, toy: Config, **config: Any) -> Published:
    told: Config = {"sample_size": 128, "in_channels": 16, "out_channels": 16, **SD3_CONFIG, **config}
    names = "StableDiffusion3Pipeline", "SD3Transformer2DModel"
    return Published(
        *names, weights, 333, "joint_attention_dim", told, {**SD3_TOY, **toy}, pooled="pooled_projection_dim"
    )


SD35_MEDIUM: Config = {
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
    "pos_embed_max_size": 384,
}
SD35_LARGE: Config = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}

FLUX_TOY: Config = {
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 640,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 4, 8),
}


def flux(weights: float, tokens: int, *, guidance: bool) -> Published:
    names, told = ("FluxPipeline", "FluxTransformer2DModel"), {"guidance_embeds": guidance}
    return Published(*names, weights, tokens, "joint_attention_dim", told, FLUX_TOY, pooled="pooled_projection_dim")


FLUX2_TOY: Config = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "timestep_guidance_channels": 64,
    "axes_dims_rope": (4, 4, 4, 4),
}
KLEIN: Config = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}


def flux2(pipeline: str, weights: float, width: int, **config: Any) -> Published:
    toy = {**FLUX2_TOY, "joint_attention_dim": width}
    return Published(pipeline, "Flux2Transformer2DModel", weights, 512, "joint_attention_dim", config, toy, scale=16)


PUBLISHED: dict[str, Published] = {
    "SD 1.4": SD14,
    "SDXL": SDXL,
    "SD3-medium": sd3(2028.3, {}),
    "SD3.5-medium": sd3(2243.2, {"dual_attention_layers": (0,)}, **SD35_MEDIUM),
    "SD3.5-large": sd3(8056.6, {}, **SD35_LARGE),
    "FLUX.1-dev": flux(11901.4, 512, guidance=True),
    "FLUX.1-schnell": flux(11891.2, 256, guidance=False),
    "PixArt-Sigma": Published(
        "PixArtSigmaPipeline",
        "PixArtTransformer2DModel",
        610.9,
        300,
        "caption_channels",
        {"sample_size": 128, "caption_channels": 4096, "use_additional_conditions": False},
        {
            "num_attention_heads": 4,
            "attention_head_dim": 8,
            "num_layers": 2,
            "cross_attention_dim": 32,
            "sample_size": 8,
            "caption_channels": 32,
        },
        masked=True,
    ),
    "Sana-1.6B": Published(
        "SanaPipeline",
        "SanaTransformer2DModel",
        1604.5,
        300,
        "caption_channels",
        {},
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 32,
            "sample_size": 16,
        },
        masked=True,
        scale=32,
    ),
    "FLUX.2-klein-4B": flux2("Flux2KleinPipeline", 3875.5, 96, **KLEIN, guidance_embeds=False),
    "Z-Image": Published(
        "ZImagePipeline",
        "ZImageTransformer2DModel",
        6154.9,
        512,
        "cap_feat_dim",
        {},
        {
            "dim": 32,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 32,
            "axes_dims": [8, 4, 4],
            "axes_lens": [256, 32, 32],
        },
        masked=True,
    ),
    "Qwen-Image": Published(
        "QwenImagePipeline",
        "QwenImageTransformer2DModel",
        20430.4,
        256,
        "joint_attention_dim",
        {},
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 192,
            "axes_dims_rope": (8, 4, 4),
        },
        masked=True,
    ),
    "FLUX.2-dev": flux2("Flux2Pipeline", 32223.3, 480),
}


def backbone(name: str, *, toy: bool = False, **changes: Any) -> nn.Module:
    """A base's backbone, or a toy of the same class and structure."""
    own = PUBLISHED[name]
    config = {**own.config, **(own.toy if toy else {}), **changes}
    return getattr(diffusers, own.backbone)(**config).eval()
