"""A base model: the parts of a diffusers pipeline that erasing needs, behind one small class."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.diffusion import Conditioning, NoiseSchedule
from advanchor.text import Prompt, concept_tokens, tokenize


class Base:
    """A Stable Diffusion 1.x or 2.x pipeline, frozen. The adapter for another architecture overrides what differs."""

    def __init__(self, pipeline: Any, *, name: str, digest: str | None = None) -> None:
        self.pipeline = pipeline
        self.name = name
        self.unet: nn.Module = pipeline.unet
        self.text_encoder: Any = pipeline.text_encoder
        self.tokenizer: Any = pipeline.tokenizer
        self.vae: Any = pipeline.vae
        self.scheduler_config: dict[str, Any] = dict(pipeline.scheduler.config)
        self.schedule = NoiseSchedule(
            pipeline.scheduler.alphas_cumprod.float(), self.scheduler_config["prediction_type"]
        )
        config = pipeline.unet.config
        self.latent_shape: tuple[int, int, int] = (config.in_channels, config.sample_size, config.sample_size)
        for module in (self.unet, self.text_encoder, self.vae):
            module.eval().requires_grad_(False)
        self.digest = digest or weights_digest(self.unet, self.text_encoder, self.vae)

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    def encode(self, prompts: Sequence[str | Prompt], token_shift: Tensor | None = None) -> Conditioning:
        """Prompt embeddings (B, L, D) in float32; `token_shift` (B, L, D) is added to the token embeddings first."""
        texts = [prompt.text if isinstance(prompt, Prompt) else prompt for prompt in prompts]
        tokens = tokenize(self.tokenizer, texts).to(self.device)
        with shifted(self.text_encoder.get_input_embeddings(), token_shift):
            embeds = self.text_encoder(tokens).last_hidden_state
        return Conditioning(embeds.float())

    def concept_tokens(self, prompts: Sequence[Prompt]) -> Tensor:
        return concept_tokens(self.tokenizer, prompts).to(self.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of clean latents, 64 at a time."""
        dtype = next(self.vae.parameters()).dtype
        scaled = (latents / self.vae.config.scaling_factor).to(dtype)
        images = torch.cat([self.vae.decode(part).sample.float() for part in scaled.split(64)])
        return (images / 2 + 0.5).clamp(0, 1)


@contextmanager
def shifted(embedding: nn.Module, shift: Tensor | None) -> Iterator[None]:
    """Add `shift` to what an embedding layer returns, inside this block."""
    if shift is None:
        yield
        return
    handle = embedding.register_forward_hook(lambda _, __, output: output + shift.to(output.dtype))  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def tensor_digest(tensor: Tensor) -> str:
    """sha256 of a tensor's shape and values, rounded to float16: the same for a model loaded in fp16 or fp32."""
    half = tensor.detach().to("cpu", torch.float16).contiguous()
    return hashlib.sha256(str(tuple(half.shape)).encode() + half.numpy().tobytes()).hexdigest()


def weights_digest(*modules: nn.Module) -> str:
    """One sha256 for all tensors of some modules, by name."""
    total = hashlib.sha256()
    for number, module in enumerate(modules):
        for name, tensor in sorted(module.state_dict().items()):
            total.update(f"{number} {name} {tensor_digest(tensor)}\n".encode())
    return total.hexdigest()
