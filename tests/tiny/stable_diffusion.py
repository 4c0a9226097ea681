"""SDXL and SD3."""

from typing import Any

import diffusers
import tokens

from advanchor.bench.published import backbone
from tiny.parts import clip_text, t5_enc, vae_kl

D: Any = diffusers  # whose annotations are narrower than what it takes


def sdxl() -> Any:
    t1, t2 = tokens.clip(), tokens.clip(pad="!")
    unet = backbone("SDXL", toy=True)
    sched = D.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return D.StableDiffusionXLPipeline(
        vae=vae_kl(),
        text_encoder=clip_text(t1),
        text_encoder_2=clip_text(t2, 48, 48, act="gelu"),
        tokenizer=t1,
        tokenizer_2=t2,
        unet=unet,
        scheduler=sched,
        add_watermarker=False,
    )


def sd3(dual: tuple[int, ...] = (0,), t5: bool = True) -> Any:
    t1, t2, t3 = tokens.clip(), tokens.clip(pad="!"), tokens.t5()
    tr = backbone("SD3.5-medium", toy=True, dual_attention_layers=dual)
    return D.StableDiffusion3Pipeline(
        transformer=tr,
        scheduler=D.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae_kl(16, 0.0609, 1.5305, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(t1, 32, 32),
        tokenizer=t1,
        text_encoder_2=clip_text(t2, 48, 48),
        tokenizer_2=t2,
        text_encoder_3=t5_enc(t3, 384) if t5 else None,
        tokenizer_3=t3 if t5 else None,
    )
