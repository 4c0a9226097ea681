"""Pictures for prompts, from the base with any delta switched on by the caller."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from advanchor.evaluation.settings import SamplingSettings
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.sampling import initial_noise, sample_latents
from advanchor.training.engine import derived_seed

Encode = Callable[[Sequence[str]], Conditioning]


def rows_at_once(latent_shape: Sequence[int]) -> int:
    """How many pictures are sampled together: 128 of 8 x 8 latents, 4 of 64 x 64."""
    return max(4, min(128, 16_384 // (latent_shape[1] * latent_shape[2])))


@torch.no_grad()
def sampled(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    module: nn.Module | None = None,
    encode: Encode | None = None,
) -> Iterator[Tensor]:
    """Clean latents (B, C, h, w), some prompts at a time; the same seed, the same noise."""
    encode = encode or base.encode
    null = base.unconditional()
    size = rows_at_once(base.latent_shape)
    for start in range(0, len(prompts), size):
        chunk = slice(start, start + size)
        yield sample_latents(
            base,
            module or base.backbone,
            initial_noise(base.latent_shape, seeds[chunk]).to(base.device),
            encode(prompts[chunk]),
            null,
            num_steps=settings.steps,
            guidance=settings.guidance,
            solver=settings.solver,
        )


def generate(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    module: nn.Module | None = None,
    encode: Encode | None = None,
) -> Tensor:
    """One picture per prompt and seed, (len(prompts), 3, H, W) in [0, 1] on the CPU; `encode`: if not the base's."""
    return torch.cat([base.decode(part).cpu() for part in sampled(base, prompts, seeds, settings, module, encode)])


def numbered_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """A seed per prompt that depends on the prompt, on how often it came before, and on `seed`."""
    seen: dict[str, int] = {}
    seeds = []
    for prompt in prompts:
        seen[prompt] = seen.get(prompt, 0) + 1
        seeds.append(derived_seed("picture", seed, prompt, seen[prompt]))
    return seeds
