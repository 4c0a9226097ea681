"""A base model: the parts of a diffusers pipeline that erasing needs, behind one class that every architecture shares.

Methods see `Conditioning`, `Base.predict` and `Base.encode`; what differs between pipelines is in one file each.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advanchor.models import readers
from advanchor.models.conditioning import Conditioning
from advanchor.models.digests import PARTS, weights_digest
from advanchor.models.encoders import TextEncoder, deviation, numbered, shifted, table
from advanchor.models.profile import profile_of
from advanchor.models.schedule import Schedule
from advanchor.models.text import Prompt

DECODED_AT_ONCE = 64  # pictures of up to 64 x 64 latents; of larger ones a sixteenth
TRUSTED_SIDE = 64


class Base:
    """A pipeline, frozen. A subclass for each class of pipelines says what differs."""

    backbone_name: ClassVar[Literal["unet", "transformer"]] = "unet"
    guided: Literal["classifier_free", "embedded", "none"] = "classifier_free"
    unfilled: int = 0  # positions behind all segments, zero in every prompt: those of a missing encoder
    packable: ClassVar[bool] = True  # whether a reader's rows can be told apart by concept
    latent_shape: tuple[int, int, int]  # C, h, w
    schedule: Schedule
    encoders: list[TextEncoder]  # of a causal one, `later` tokens carry the concept

    def __init__(self, pipeline: Any, *, name: str, digest: str | None = None) -> None:
        self.pipeline = pipeline
        self.name = name
        self.resting = False  # whether the text encoders have left the device
        self.made_of: dict[str, Any] = {}  # files beside a pipeline's folder, with their sha256: a checkpoint, LoRAs
        self.scheduler_config: dict[str, Any] = dict(pipeline.scheduler.config)
        self.latent_shape = self.shape_of_latents()
        self.schedule = self.make_schedule()
        self.encoders = self.make_encoders()
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        self.digest = digest or weights_digest(*self.modules().values())
        self.profile = profile_of(self.digest)

    # --- what a subclass says

    def shape_of_latents(self) -> tuple[int, int, int]:
        config = self.backbone.config
        return config.in_channels, config.sample_size, config.sample_size

    def make_schedule(self) -> Schedule:
        raise NotImplementedError

    def make_encoders(self) -> list[TextEncoder]:
        raise NotImplementedError

    def embed(self, texts: Sequence[str]) -> Conditioning:
        """Prompt embeddings and more, in whatever dtype the encoders compute in."""
        raise NotImplementedError

    def denoise(
        self,
        module: nn.Module,  # the backbone, or an engine's form of it
        noisy_latents: Tensor,  # (B, C, h, w)
        timesteps: Tensor,  # (B,)
        conditioning: Conditioning,
        guidance: float | None = None,  # of a model that is told it; None: as the pipeline's own default
    ) -> Tensor:
        """The model's own output (B, C, h, w) in float32, with its schedule's sign."""
        raise NotImplementedError

    def unconditional(self) -> Conditioning:
        """One row: what guidance leads away from."""
        return self.encode([""])

    def combined(self, unconditional: Tensor, conditional: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance (Ho and Salimans 2022)."""
        return unconditional + guidance * (conditional - unconditional)

    def scheduler(self, solver: str, num_steps: int) -> Any:
        """A sampler's scheduler with its timesteps set."""
        raise NotImplementedError

    def to_pixels(self, latents: Tensor) -> Tensor:
        """The VAE's pictures, about -1 to 1."""
        config = self.vae.config
        scaled = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)
        return self.vae.decode(scaled.to(next(self.vae.parameters()).dtype)).sample

    def read(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """What the readers of each group are given: "text" (B, L, D) and, if there are some, "pooled" (B, 1, D)."""
        return {"text": conditioning.prompt_embeds} | self.read_pooled(conditioning)

    def read_pooled(self, conditioning: Conditioning) -> dict[str, Tensor]:
        pooled = conditioning.added.get("pooled")
        return {} if pooled is None else {"pooled": pooled.unsqueeze(-2)}

    # --- what they share

    @property
    def backbone(self) -> Any:
        """The module that denoises."""
        return getattr(self.pipeline, self.backbone_name)

    @property
    def vae(self) -> Any:
        return self.pipeline.vae

    def modules(self) -> dict[str, nn.Module]:
        """The parts that have weights, by the pipeline's names for them."""
        found = ((part, getattr(self.pipeline, part, None)) for part in PARTS)
        return {part: module for part, module in found if isinstance(module, nn.Module)}

    def rest(self, where: str | torch.device = "cpu") -> None:
        """Move the text encoders off the device until `encode` is called again. On `where` already, they stay."""
        places = {encoder.module.device for encoder in self.encoders}
        if places == {self.device} != {torch.device(where)}:
            self.move_encoders(where)
            self.resting = True

    def awake(self) -> None:
        """Bring the text encoders back."""
        if self.resting:
            self.move_encoders(self.device)
            self.resting = False

    def move_encoders(self, where: str | torch.device) -> None:
        for encoder in self.encoders:
            encoder.module.to(where)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the backbone computes in."""
        return next(self.backbone.parameters()).dtype

    @property
    def readers(self) -> dict[str, list[str]]:
        """Names of the Linears that read the prompt, by group."""
        return readers.reader_groups(self.backbone)

    def groups(self, weights: Iterable[str]) -> dict[str, str]:
        """The group of the reader that each of these weights ("<name>.weight") is of. ValueError for another weight."""
        kind = type(self.backbone).__name__
        found = {name: readers.reader_group(kind, name.removesuffix(".weight")) for name in weights}
        if others := [name for name, group in found.items() if group is None]:
            raise ValueError(f"{others[0]} reads no prompt: only readers have closed forms")
        return {name: group for name, group in found.items() if group}

    @property
    def trained_weights(self) -> list[str]:
        """What the setting of this name can be for this base."""
        return readers.choices(self.backbone)

    def encode(self, prompts: Sequence[str | Prompt], token_shift: Tensor | None = None) -> Conditioning:
        """Prompt embeddings (B, L, D) in float32; `token_shift` (B, T, W) is added to the token embeddings first.

        T: the tokens of all encoders, one encoder after another; W: the widest encoder's. A further encoder's part is
        taken in deviations of its own embeddings relative to the first's, so that one number means as much everywhere.
        """
        texts = [prompt.text if isinstance(prompt, Prompt) else prompt for prompt in prompts]
        self.awake()
        with ExitStack() as stack:
            if token_shift is not None:
                for encoder, part in zip(self.encoders, self.shares(token_shift), strict=True):
                    stack.enter_context(shifted(encoder.embedding, part))
            found = self.embed(texts)
        added = {key: value.float() if value.is_floating_point() else value for key, value in found.added.items()}
        return Conditioning(found.prompt_embeds.float(), added)

    def shares(self, token_shift: Tensor) -> list[Tensor]:
        """Each encoder's part (B, its length, its width) of a token_shift."""
        parts = token_shift.split([encoder.length for encoder in self.encoders], dim=1)
        first = self.token_deviation
        return [
            part[..., : encoder.token_width] * (1.0 if i == 0 else deviation(encoder) / first)
            for i, (encoder, part) in enumerate(zip(self.encoders, parts, strict=True))
        ]

    @property
    def token_deviation(self) -> float:
        """Standard deviation of the first encoder's token embeddings."""
        return deviation(self.encoders[0])

    @property
    def token_width(self) -> int:
        """W of a token_shift."""
        return max(encoder.token_width for encoder in self.encoders)

    def token_positions(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, T): rows of the concept's tokens among all encoders' tokens, each encoder's its own; -1 elsewhere."""
        return torch.cat(numbered([table(encoder, prompts) for encoder in self.encoders]), 1).to(self.device)

    def concept_tokens(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, L): rows of the concept's tokens in the prompt embeddings, -1 elsewhere.

        Encoders that share positions share rows; of others, each has rows of its own. Raises PromptError.
        """
        tables = numbered([table(encoder, prompts)[:, encoder.keep] for encoder in self.segments()])
        return F.pad(torch.cat(tables, 1), (0, self.unfilled), value=-1).to(self.device)

    def segments(self) -> list[TextEncoder]:
        """The encoders whose tokens stand one after another in the prompt embeddings, one for each place."""
        first: dict[tuple[Any, Any], TextEncoder] = {}
        for encoder in self.encoders:
            if encoder.rows is not None:
                first.setdefault((encoder.rows.start, encoder.rows.stop), encoder)
        return list(first.values())

    def carriers(self, positions: Tensor) -> Tensor:
        """Extend positions of `concept_tokens` to all tokens that carry the concept, with one shared row per segment.

        In a causal encoder those are the later tokens, in a bidirectional one all others.
        """
        lengths = [encoder.passed for encoder in self.segments()]
        found = self.extended(positions[:, : sum(lengths)], self.segments(), lengths)
        return F.pad(found, (0, self.unfilled), value=-1)

    def token_carriers(self, positions: Tensor) -> Tensor:
        """The same for positions of `token_positions`."""
        return self.extended(positions, self.encoders, [encoder.length for encoder in self.encoders])

    def extended(self, positions: Tensor, encoders: Sequence[TextEncoder], lengths: Sequence[int]) -> Tensor:
        """Positions (B, sum of lengths) with one more row per encoder, for tokens that only carry the concept."""
        number = int(positions.max()) + 1
        parts = []
        for encoder, part in zip(encoders, positions.split(list(lengths), dim=1), strict=True):
            own = part >= 0
            carry = own.cumsum(1) > 0 if encoder.causal else own.any(1, keepdim=True).expand_as(own)
            parts.append(part.masked_fill(carry & ~own, number))
            number += int(bool((carry & ~own).any()))
        return torch.cat(parts, 1)

    def speaking(self, conditioning: Conditioning) -> Tensor:
        """(B, L) bool: tokens that are read and that are not the same in every prompt."""
        speaks = torch.ones(conditioning.prompt_embeds.shape[:2], dtype=torch.bool, device=self.device)
        start = 0
        for encoder in self.segments():
            speaks[:, start : start + encoder.prefix] = False
            start += encoder.passed
        speaks[:, start:] = False
        mask = conditioning.added.get("mask")
        return speaks if mask is None else speaks & mask.bool()

    def present(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """All that the readers of each group are given and that is read: (n, D)."""
        found, mask = self.read(conditioning), conditioning.added.get("mask")
        if mask is not None:
            told = mask.bool()
            found["text"] = found["text"][told | ~told.any(1, keepdim=True)]  # a softmax over nothing is over all
        return {group: own.reshape(-1, own.shape[-1]) for group, own in found.items()}

    def spoken(self, conditioning: Conditioning) -> dict[str, Tensor]:
        """The part of it that is not the same in every prompt, (n, D)."""
        found = self.read(conditioning)
        found["text"] = found["text"][self.speaking(conditioning)]
        return {group: own.reshape(-1, own.shape[-1]) for group, own in found.items()}

    def empties(self) -> list[Conditioning]:
        """What is to stay exactly as it is: the empty prompt, and what guidance leads away from where that differs."""
        own, null = self.encode([""]), self.unconditional()
        return [own] if same(own, null) else [own, null]

    def predict(
        self, module: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """(B, C, h, w) in the space of the losses: epsilon, or v of a flow."""
        output = self.denoise(module, noisy_latents, timesteps, conditioning)
        return self.schedule.prediction(output, noisy_latents, timesteps)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of clean latents, some at a time."""
        at_once = DECODED_AT_ONCE if self.latent_shape[1] <= TRUSTED_SIDE else DECODED_AT_ONCE // 16
        images = torch.cat([self.to_pixels(part).float() for part in latents.split(at_once)])
        return (images / 2 + 0.5).clamp(0, 1)


def same(a: Conditioning, b: Conditioning) -> bool:
    return torch.equal(a.prompt_embeds, b.prompt_embeds) and all(torch.equal(a.added[k], b.added[k]) for k in a.added)
