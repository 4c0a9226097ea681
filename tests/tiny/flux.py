"""FLUX.1."""

from typing import Any

import diffusers
import tokens

from advanchor.bench.published import backbone
from tiny.parts import clip_text, t5_enc, vae_kl

D: Any = diffusers  # whose annotations are narrower than what it takes


def flux(guidance: bool = True) -> Any:
    t1, t2 = tokens.clip(), tokens.t5()
    tr = backbone("FLUX.1-dev" if guidance else "FLUX.1-schnell", toy=True)
    sched = (
        D.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
        if guidance
        else D.FlowMatchEulerDiscreteScheduler(shift=1.0)
    )
    return D.FluxPipeline(
        scheduler=sched,
        vae=vae_kl(16, 0.1159, 0.3611, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(t1),
        tokenizer=t1,
        text_encoder_2=t5_enc(t2, 640),
        tokenizer_2=t2,
        transformer=tr,
    )
