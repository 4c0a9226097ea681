"""What a concept becomes: the anchors of which methods are made.

    text       the superclass (the neutral prompt), a similar concept in the same templates, or the empty prompt
    learned    e_a = e_start + pad(e_adv), where e_adv is searched on the teacher (Zhao et al. 2024, arXiv 2501.00054)

far_anchor.py has a learned anchor that starts elsewhere and ends beyond neutral.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.text import Prompt, fill, pad_to_prompt
from advanchor.settings import Section
from advanchor.training.context import Batch, Context, TrainingSettings
from advanchor.training.engine import derived_seed
from advanchor.training.perturbation import Perturbation

Space = Literal["prompt_embeds", "token_embeds"]


class TextAnchorSettings(Section):
    """Which prompt a concept becomes."""

    anchor: Literal["superclass", "empty", "concept"] = Field(
        default="superclass",
        description="what the concept becomes: the neutral prompt, the empty prompt, another concept in its templates",
    )
    anchor_concept: str | None = Field(
        default=None, description="that other concept, for all; default: each concept's `similar`"
    )

    @model_validator(mode="after")
    def check_anchor(self) -> Self:
        if self.anchor_concept and self.anchor != "concept":
            raise ValueError("anchor_concept goes with anchor: concept, and only with it")
        return self


class SearchSettings(TrainingSettings):
    """How an anchor is learned."""

    strategy: Literal["alternating", "sequential", "cyclical"] = Field(
        default="alternating", description="how anchor steps and student steps take turns"
    )
    anchor_steps: int = Field(
        default=30, ge=0, description="steps on e_adv per batch (cyclical: sweeps over all batches)"
    )
    anchor_lr: float = Field(default=1e-4, gt=0, description="learning rate of e_adv (Adam without weight decay)")
    anchor_init: float = Field(default=1e-7, ge=0, description="standard deviation of e_adv at the start")
    perturb_tokens: Literal["concept", "concept_and_later"] = Field(
        default="concept", description="the concept's own tokens, or also, with one shared row, all tokens after them"
    )
    perturb_pooled: Literal["neutral", "keep", "learn"] = Field(
        default="neutral",
        description="of a base with a pooled vector: the anchor's is the neutral prompt's, that of where it starts, or "
        "that one and a vector that is searched with e_adv",
    )
    reset_anchor_optimizer: bool = Field(
        default=False, description="a new Adam for every batch, as in the authors' scripts"
    )

    @property
    def space(self) -> Space:
        """Where e_adv is added: to what the denoiser reads, or before the text encoder."""
        return "prompt_embeds"

    def start_prompts(self, concept: Concept) -> tuple[str, ...]:
        """Where the search starts, a prompt for each template."""
        return anchor_prompts(concept, "own")

    @property
    def unused(self) -> set[str]:
        """perturb_pooled came after 0.1; at its default it says nothing new."""
        return super().unused | ({"perturb_pooled"} if self.perturb_pooled == "neutral" else set())


# --- text


def anchor_prompts(concept: Concept, anchor: str, other: str | None = None) -> tuple[str, ...]:
    """The anchor's prompt for each of a concept's templates; other: names a similar concept in place of `similar`."""
    match anchor:
        case "own":
            return tuple(fill(template, concept.name).text for template in concept.templates)
        case "superclass":
            return concept.neutral
        case "empty":
            return ("",) * len(concept.templates)
        case "concept" | "similar":
            return tuple(fill(template, other or concept.similar).text for template in concept.templates)
    raise ValueError(f"no anchor {anchor!r}")


@torch.no_grad()
def text_anchor(context: Context, anchor: str, other: str | None = None) -> Conditioning:
    """Embeddings (templates, L, D) of each concept's anchor prompts."""
    return context.encode([p for concept in context.concepts for p in anchor_prompts(concept, anchor, other)])


def lacks_similar(concept: Concept, setting: str, value: str, other: str | None) -> list[str]:
    """Why a concept cannot be erased towards, or from, one like it; empty if it can, or need not."""
    if value not in ("concept", "similar") or other or concept.similar:
        return []
    return [f"{setting}: {value} asks for {setting}_concept, or for `similar` of {concept.name!r}"]


# --- learned


def anchor_conditioning(
    base: Base, e_start: Conditioning, prompts: Sequence[Prompt], shift: Tensor, space: Space, pooled: Tensor | None
) -> Conditioning:
    """e_a (..., L, D) = e_start + shift; in the space token_embeds, prompts encoded with shift on the token embeddings.

    shift: pad(e_adv), (..., L, D). pooled: what is added to the pooled vectors (..., D_pooled), if anything is.
    """
    if space == "prompt_embeds":
        e_a = e_start.with_embeds(e_start.prompt_embeds + shift)
        return e_a if pooled is None else e_a.plus_pooled(pooled)
    e_a = base.encode(prompts, token_shift=shift.flatten(0, -3))
    return e_a.rows(torch.arange(len(prompts)).view(shift.shape[:-2]))


def row_positions(base: Base, prompts: Sequence[Prompt], settings: SearchSettings) -> Tensor:
    """Which row of e_adv stands where in one concept's prompts: (templates, L), or (templates, T) of all encoders."""
    if settings.space == "token_embeds":
        positions = base.token_positions(prompts)
        return positions if settings.perturb_tokens == "concept" else base.token_carriers(positions)
    positions = base.concept_tokens(prompts)
    return positions if settings.perturb_tokens == "concept" else base.carriers(positions)


def pooled_of(e_start: Conditioning, e_n: Conditioning, settings: SearchSettings) -> Conditioning:
    """e_start with the pooled vector that its anchor has: it changes every block of a denoiser that is given one."""
    return e_start.with_pooled(e_n) if settings.perturb_pooled == "neutral" else e_start


def pooled_rates(context: Context, settings: SearchSettings) -> list[float]:
    """Learning rates of pooled vectors, one per concept; none where they are not learned.

    anchor_lr in deviations of the pooled embeddings relative to the prompt embeddings', so that one step means as much
    in both. Before the text encoder e_adv moves the pooled vector itself.
    """
    if settings.perturb_pooled != "learn" or settings.space != "prompt_embeds" or "pooled" not in context.e_c.added:
        return []
    own = (context.e_c.rows(span) for span in context.spans)
    ratios = ((e.added["pooled"].std() / e.prompt_embeds[context.base.speaking(e)].std()).item() for e in own)
    return [settings.anchor_lr * ratio for ratio in ratios]


class LearnedAnchor:
    """An anchor e_a for each concept of a pack, searched on the teacher; what it minimises is a subclass's `loss`."""

    def __init__(self, context: Context, settings: SearchSettings, e_start: Conditioning) -> None:
        self.context, self.settings = context, settings
        self.e_start = pooled_of(e_start, context.e_n, settings)
        base, starts = context.base, []
        positions = [row_positions(base, own, settings) for own in context.per_concept(context.prompts)]
        width = base.token_width if settings.space == "token_embeds" else context.e_c.prompt_embeds.shape[-1]
        for own, seed in zip(positions, context.seeds, strict=True):
            generator = torch.Generator().manual_seed(derived_seed(seed, "e_adv"))
            start = settings.anchor_init * torch.randn(int(own.max()) + 1, width, generator=generator)
            starts.append(start.to(context.base.device))
        self.owners = torch.cat([torch.full((len(own),), i) for i, own in enumerate(positions)]).to(base.device)
        rates = pooled_rates(context, settings)
        self.perturbation = Perturbation(positions, starts, settings.anchor_lr, self.pooled_starts(len(rates)), rates)
        self.avoided, self.weights = avoided_prompts(context)

    @property
    def e_adv(self) -> list[Tensor]:
        """(rows, D) of each concept: as many as it has tokens, and one for later ones if asked."""
        return self.perturbation.rows

    @property
    def pooled_adv(self) -> list[Tensor]:
        """(D_pooled,) of each concept, what is added to its pooled vectors; empty where that is not learned."""
        return self.perturbation.pooled

    def pooled_starts(self, count: int) -> list[Tensor]:
        """The vectors (D_pooled,) that the search starts from; count: of all concepts, or 0 where none is learned."""
        found = []
        for seed in self.context.seeds[:count]:
            generator = torch.Generator().manual_seed(derived_seed(seed, "pooled_adv"))
            start = torch.randn(self.e_start.added["pooled"].shape[-1], generator=generator)
            found.append((self.settings.anchor_init * start).to(self.context.base.device))
        return found

    def conditioning(self, templates: Tensor) -> Conditioning:
        """e_a of templates (concepts, B)."""
        shift = self.perturbation.shift(self.perturbation.positions[templates])
        prompts = [self.context.prompts[i] for i in templates.flatten().tolist()]
        pooled = torch.stack(self.pooled_adv)[self.owners[templates]] if self.pooled_adv else None
        e_start = self.e_start.rows(templates)
        return anchor_conditioning(self.context.base, e_start, prompts, shift, self.settings.space, pooled)

    def loss(self, batch: Batch) -> Tensor:
        """What e_adv is to make small, (concepts,)."""
        raise NotImplementedError

    def step(self, batch: Batch) -> list[int]:
        """One step on each e_adv; returns the concepts whose loss was still above 0."""
        return self.perturbation.step(self.loss(batch), batch.concepts, self.context.engine.mean)

    def search(self, batch: Batch) -> None:
        """Up to `anchor_steps` steps on one batch; a concept that stops leaves it."""
        if self.settings.reset_anchor_optimizer:
            self.perturbation.reset_optimizer()
        for _ in range(self.settings.anchor_steps):
            above = self.step(batch)
            if not above:
                break
            batch = batch.of(above)

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """eps0(x_t, e_a)."""
        return self.context.predict(batch, self.conditioning(batch.templates))[0]


def avoided_prompts(context: Context) -> tuple[dict[str, Conditioning], dict[str, Tensor]]:
    """What the losses push away from, (templates, L, D), and with which weight, (concepts,): concept and attributes."""
    concepts = context.concepts
    counts = {len(concept.attributes) for concept in concepts}
    if len(counts) > 1:
        raise ValueError(f"concepts with {' and '.join(map(str, sorted(counts)))} attributes cannot share a pack")
    embeds, weights = {"concept": context.e_c}, {"concept": torch.ones(len(concepts), device=context.base.device)}
    for i in range(counts.pop()):
        names = [list(concept.attributes)[i] for concept in concepts]
        prompts = [fill(t, name) for concept, name in zip(concepts, names, strict=True) for t in concept.templates]
        with torch.no_grad():
            embeds[f"attribute {i}"] = context.encode(prompts)
        own = [concept.attributes[name] for concept, name in zip(concepts, names, strict=True)]
        weights[f"attribute {i}"] = torch.tensor(own, device=context.base.device)
    return embeds, weights


@torch.no_grad()
def finished_anchor(
    base: Base, concept: Concept, settings: SearchSettings, e_adv: Tensor, pooled_adv: Tensor | None = None
) -> tuple[Conditioning, Conditioning]:
    """e_c and e_a (templates, L, D) of a finished erasure, from its settings and what its anchor file holds."""
    prompts = [fill(template, concept.name) for template in concept.templates]
    e_c, e_start = base.encode(prompts), base.encode(settings.start_prompts(concept))
    e_start = pooled_of(e_start, base.encode(concept.neutral), settings)
    shift = pad_to_prompt(e_adv.to(base.device), row_positions(base, prompts, settings))
    pooled = None if pooled_adv is None else pooled_adv.to(base.device)
    return e_c, anchor_conditioning(base, e_start, prompts, shift, settings.space, pooled)
