"""The pocket gallery as a Stable Diffusion 3: an MMDiT and two CLIP text encoders, beside the gallery's own VAE."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from advanchor.evaluation.generate import numbered_seeds
from advanchor.evaluation.settings import SamplingSettings
from advanchor.models.repeated_rows import RepeatedRowAttention, last_row_weighs
from advanchor.models.sampling import initial_noise
from advanchor.pocket.parts import MAX_LENGTH
from advanchor.pocket.train import tidy
from advanchor.pocket.world import SIZE

WIDTH = 128  # of the MMDiT and of each text encoder
HEAD = 32  # width of an attention head
BLOCKS = 6
EMPTY_ROWS = 256  # zero rows that StableDiffusion3Pipeline adds by default where a T5 encoder would speak
WITHOUT_T5: Any = {"text_encoder_3": None, "tokenizer_3": None}  # from_pretrained wants to be told so


class Parts(NamedTuple):
    """What is trained, together."""

    text_encoder: CLIPTextModelWithProjection
    text_encoder_2: CLIPTextModelWithProjection
    transformer: SD3Transformer2DModel

    def parameters(self) -> list[Tensor]:
        return [parameter for part in self for parameter in part.parameters()]


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
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
    return CLIPTextModelWithProjection(config)


def new_transformer(channels: int) -> SD3Transformer2DModel:
    """Begins by predicting zero with blocks that change nothing (adaLN-Zero, Peebles and Xie 2023)."""
    make: Any = SD3Transformer2DModel
    transformer = make(
        sample_size=SIZE // 4,
        patch_size=1,
        in_channels=channels,
        out_channels=channels,
        num_layers=BLOCKS,
        attention_head_dim=HEAD,
        num_attention_heads=WIDTH // HEAD,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=SIZE // 4,
        qk_norm="rms_norm",
    )
    for name, module in transformer.named_modules():
        if name == "proj_out" or name.endswith((".norm1.linear", ".norm1_context.linear")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def new_parts(tokenizer: CLIPTokenizer, seed: int, channels: int = 4) -> Parts:
    torch.manual_seed(seed)
    return Parts(new_text_encoder(tokenizer), new_text_encoder(tokenizer), new_transformer(channels))


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Noise levels evenly from 1 to 0: at 8 x 8 latents, a shift towards noise has nothing to make up for."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def key_scores(rows: Tensor) -> Tensor:
    """(B,) counts of zero rows -> (B, 1, 1, keys), what RepeatedRowAttention adds to its scores."""
    return last_row_weighs(rows, (SIZE // 4) ** 2 + MAX_LENGTH + 1)


def embed(parts: Parts, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 16) token ids -> (B, 16, 256) penultimate states side by side, and (B, 256) projections, as SD3 has them."""
    told = [encoder(tokens, output_hidden_states=True) for encoder in (parts.text_encoder, parts.text_encoder_2)]
    return (
        torch.cat([one.hidden_states[-2] for one in told], -1),
        torch.cat([one.text_embeds for one in told], -1),
    )


def velocity(
    parts: Parts, noisy: Tensor, sigma: Tensor, tokens: Tensor, rows: Tensor, *, mixed_precision: bool = True
) -> Tensor:
    """What the stock transformer predicts with `rows` zero rows behind the text.

    Needs RepeatedRowAttention in the transformer. noisy: (B, C, 8, 8); sigma: (B,) in [0, 1]; rows: (B,) counts.
    """
    embeds, pooled = embed(parts, tokens)
    model: Any = parts.transformer
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=mixed_precision):
        predicted = model(
            noisy,
            encoder_hidden_states=F.pad(embeds, (0, 0, 0, 1)),
            pooled_projections=pooled,
            timestep=sigma * 1000,
            joint_attention_kwargs={"attention_mask": key_scores(rows)},
        ).sample
    return predicted.float()


def save(parts: Parts, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """A StableDiffusion3Pipeline folder without T5, in fp16. Changes the precision of what it is given."""
    parts.transformer.set_attn_processor(JointAttnProcessor2_0())
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds it to every latent
    make: Any = StableDiffusion3Pipeline
    pipeline = make(
        transformer=parts.transformer,
        scheduler=new_scheduler(),
        vae=vae,
        text_encoder=parts.text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=parts.text_encoder_2,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    tidy(folder)


def drawer(pipeline: StableDiffusion3Pipeline, settings: SamplingSettings) -> Callable[[Sequence[str], int], Tensor]:
    """Prompts and a seed -> pictures (N, 3, H, W) in [0, 1], by the pipeline's own call.

    Its 256 zero rows are told as one by RepeatedRowAttention, which stays in the pipeline.
    """
    pipeline.transformer.set_attn_processor(RepeatedRowAttention())  # pyright: ignore[reportArgumentType]
    pipeline.set_progress_bar_config(disable=True)
    scores = key_scores(torch.tensor([float(EMPTY_ROWS)]))
    channels = pipeline.transformer.config.in_channels
    call: Any = pipeline

    def draw(prompts: Sequence[str], seed: int) -> Tensor:
        noise = initial_noise((channels, SIZE // 4, SIZE // 4), numbered_seeds(prompts, seed))
        found = [
            call(
                list(prompts[start : start + 64]),
                latents=noise[start : start + 64],
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                max_sequence_length=1,
                joint_attention_kwargs={"attention_mask": scores},
                output_type="pt",
            ).images
            for start in range(0, len(prompts), 64)
        ]
        return torch.cat(found)

    return draw
