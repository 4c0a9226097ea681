"""What SDXL and FLUX.1-dev need of a GPU, from their published configurations: counted, never loaded.

Configurations: SDXL's UNet as in shapes.py; FLUX.1's transformer as diffusers' defaults; the text encoders are CLIP
ViT-L/14, OpenCLIP ViT-bigG/14 and T5 v1.1 XXL; the VAEs differ in their channels only.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from advanchor.batch.disk import FLOAT32, numbers
from advanchor.batch.memory import BYTES_PER_WEIGHT, GB, SPARE, Memory, bytes_of, delta_weights, kept_bytes
from advanchor.bench import shapes
from advanchor.concepts import Concept
from advanchor.methods import METHODS, MethodSettings
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.flux import Flux
from advanchor.models.sdxl import StableDiffusionXL

SCALE = 8  # pixels of a latent's side
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
BIG_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
T5_XXL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
}
HEAD = (
    "| base | pixels | denoiser | text encoders | VAE | deltas | activations per row | the same, checkpointed | task | "
    "task, checkpointed | TFLOP per row |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def vae(channels: int, side: int, *, quantised: bool) -> AutoencoderKL:
    config: dict[str, Any] = VAE | {"latent_channels": channels, "sample_size": side}
    return AutoencoderKL(**config, use_quant_conv=quantised, use_post_quant_conv=quantised)


def tokenizer(length: int) -> Any:
    """As much of a tokenizer as a base asks for that is never told a prompt."""
    return SimpleNamespace(model_max_length=length)


def sdxl(side: int) -> tuple[Base, Conditioning]:
    pipeline = SimpleNamespace(
        unet=shapes.unet("sdxl", side // SCALE),
        text_encoder=shapes.text_encoder(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=49408, **BIG_G)),
        tokenizer=tokenizer(shapes.LENGTH),
        tokenizer_2=tokenizer(shapes.LENGTH),
        vae=vae(4, side, quantised=True),
        scheduler=DDIMScheduler(**shapes.SCHEDULER),
    )
    told = {"pooled": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
    return in_bf16(StableDiffusionXL, pipeline), Conditioning(torch.empty(1, shapes.LENGTH, 2048), told)


def flux(side: int) -> tuple[Base, Conditioning]:
    clip: CLIPTextModel = shapes.text_encoder()
    pipeline = SimpleNamespace(
        transformer=FluxTransformer2DModel(guidance_embeds=True),
        text_encoder=clip,
        text_encoder_2=T5EncoderModel(T5Config(**T5_XXL)),
        tokenizer=tokenizer(shapes.LENGTH),
        tokenizer_2=tokenizer(512),
        vae=vae(16, side, quantised=False),
        vae_scale_factor=SCALE,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15),
    )
    return in_bf16(Flux, pipeline), Conditioning(torch.empty(1, 512, 4096), {"pooled": torch.empty(1, 768)})


def in_bf16(kind: type[Base], pipeline: Any) -> Base:
    for module in vars(pipeline).values():
        if isinstance(module, torch.nn.Module):
            module.to(torch.bfloat16)
    return kind(pipeline, name="hollow", digest="hollow")


BASES: dict[str, Callable[[int], tuple[Base, Conditioning]]] = {"SDXL": sdxl, "FLUX.1-dev": flux}


def measure(name: str, side: int, batch_size: int, *, checkpointed: bool) -> Memory:
    """Of one concept in bf16 on one GPU, trained_weights: readers."""
    with torch.device("meta"):
        base, conditioning = BASES[name](side)
    weights = delta_weights(base, "readers")
    return Memory(
        backbone=bytes_of(base.backbone),
        encoders=sum(bytes_of(encoder.module) for encoder in base.encoders),
        vae=bytes_of(base.vae),
        training=BYTES_PER_WEIGHT * weights,
        activations=2 * batch_size * kept_bytes(base, conditioning, checkpointed),
        rows=2 * batch_size,
        side=side,
    )


@torch.no_grad()
def forward_flops(base: Base, conditioning: Conditioning) -> float:
    """Floating-point operations of one row's forward through a denoiser on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        noise = torch.empty(1, *base.latent_shape, dtype=torch.bfloat16)
        base.denoise(base.backbone, noise, torch.zeros(1, dtype=torch.long), conditioning)
    return float(counter.get_total_flops())


def row(name: str, side: int, batch_size: int) -> str:
    plain, fewer = (measure(name, side, batch_size, checkpointed=own) for own in (False, True))
    parts = (plain.backbone, plain.encoders, plain.vae, plain.training, *(each(own) for own in (plain, fewer)))
    cells = [name, str(side), *(f"{part / GB:.2f}" for part in parts), *(f"{m.total / GB:.1f}" for m in (plain, fewer))]
    with torch.device("meta"):
        cells.append(f"{forward_flops(*BASES[name](side)) / 1e12:.2f}")
    return f"| {' | '.join(cells)} |"


def each(memory: Memory) -> float:
    return (memory.activations or 0) / memory.rows


def table(batch_size: int, sides: tuple[int, ...] = (512, 1024)) -> Iterator[str]:
    """Lines of Markdown, GB of 10^9 bytes."""
    yield HEAD
    for name in BASES:
        for side in sides:
            yield row(name, side, batch_size)
    yield (
        f"\nGB (10^9 bytes) in bf16, one concept, batch_size {batch_size}: {2 * batch_size} rows. A task needs "
        f"denoiser, VAE, and the larger of text encoders and deltas + {SPARE:g} x activations. TFLOP: of a forward."
    )


def duration(batch: Path, name: str, side: int, concepts: int, gpus: int, tflops: float) -> str:
    """How long so many concepts of a batch's settings would take, by operations alone.

    tflops: what a GPU is assumed to do per second. Scoring, and what the text encoders do, are left out.
    """
    content = yaml.safe_load(batch.read_text())
    settings = TypeAdapter(MethodSettings).validate_python(content["method"])
    listed = [Concept.model_validate(own) for own in content["concepts"] if own.get("templates")]
    cost = METHODS[settings.name].cost(settings, listed[0])
    again = cost.backwards if content["resources"].get("gradient_checkpointing") else 0.0
    with torch.device("meta"):
        base, conditioning = BASES[name](side)
    passes, each = cost.equivalents + again, forward_flops(base, conditioning)
    hours = concepts * passes * each / (gpus * tflops * 1e12) / 3600
    files = FLOAT32 * numbers(base, settings.trained_weights)
    return (
        f"{concepts} concepts by {batch} on {gpus} GPUs at {tflops:g} TFLOP/s: {hours:.1f} hours ({passes:,.0f} "
        f"forward-equivalents of {each / 1e12:.2f} TFLOP a concept), {concepts * files / GB:,.0f} GB of files"
    )
