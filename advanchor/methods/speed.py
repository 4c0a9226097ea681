"""SPEED (Li et al. 2025, arXiv 2503.07392): keys and values become an anchor's, in the null space of what is retained.

    min_D |(W0 + D P) C_1 - W0 C_*|^2 + lambda |D P|^2  subject to  (D P) C_2 = 0,     P = U U^T

    D P = W0 (C_* - C_1) C_1^T P M (I - C_2 (C_2^T P M C_2)^-1 C_2^T P M),     M = (C_1 C_1^T P + lambda I)^-1

C_1 are embeddings of the concept and C_* of its anchor, (D, n); C_2 is what every generation shares, begin of text and
the empty prompt (invariant equality constraints); U are the directions in which the retained embeddings C_0 hardly
vary. C_0 is chosen for every projection anew:

    prior shift(c) = |D_erase c|,  D_erase = W0 (C_* - C_1) C_1^T (C_1 C_1^T + lambda I)^-1    how far erasing moves c
    R_f = {c : prior shift(c) > scale * mean}                                   influence-based prior filtering
    c' = c + P_min eps,  eps ~ N(0, I)                                          directed prior augmentation
    C_0 = R_f and those c' of R_f whose prior shift is above their own mean

P_min projects on the directions of W0's smallest singular values. Closed form: no pictures and no steps; a seed for
eps only. Where this differs from the paper: C_1 C_1^T and C_0 C_0^T are means over their columns, and lambda and the
threshold below which U counts are shares of a mean eigenvalue, so that settings mean the same for every text encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.methods.anchors import TextAnchorSettings, anchor_prompts, lacks_similar
from advanchor.methods.uce import embeds_from, last_positions, pooled_pairs, text_pairs
from advanchor.models.base import Base
from advanchor.models.encoding import CHUNK
from advanchor.models.profile import sampled_prompts
from advanchor.training.context import Context, Erasure
from advanchor.training.cost import Cost
from advanchor.training.engine import derived_seed
from advanchor.training.loop import erasures
from advanchor.training.projection import RANK_TOLERANCE, constrained_inverse, mentioned, null_space, with_ridge

VERSION = 1
PACKABLE = True
CLUSTER_STEPS = 20  # of k-means over the empty prompt's embeddings, of which there are fewer than a hundred


class Settings(TextAnchorSettings):
    """Where the authors' own figure is another one, it is said."""

    lr: ClassVar[float] = 0.0  # nothing is trained

    name: Literal["speed"] = "speed"
    trained_weights: Literal["cross_attention_kv", "readers", "pooled"] = Field(
        default="cross_attention_kv", description="the closed form is about what reads the prompt"
    )
    projections: Literal["values", "keys_and_values"] = Field(
        default="values", description="which are edited; the authors edit values alone"
    )
    tokens: Literal["last", "last_and_later"] = Field(
        default="last", description="which of a concept's embeddings are edited; the authors: the last"
    )
    scale: float = Field(default=1.0, gt=0, description="how many times as far as the anchor; the authors: once")
    ridge: float = Field(default=1.0, gt=0, description="lambda, as a share of the mean eigenvalue of C_1 C_1^T")
    retain: tuple[str, ...] = Field(default=(), description="prompts whose keys and values are to stay")
    retain_prompts: int = Field(
        default=1000, ge=0, description="prompts of the base's own world that are retained besides"
    )
    retain_tokens: Literal["last", "last_and_later", "all"] = Field(
        default="last", description="which of their embeddings are retained; the authors: the last"
    )
    threshold: float = Field(
        default=0.1,
        ge=0,
        description="directions of C_0 below this share of its mean eigenvalue may change; the authors: about 0.1 for "
        "few concepts, 0.0001 for many",
    )
    filter_scale: float = Field(
        default=1.0, ge=0, description="how many times the mean a prior shift must exceed to be retained; 0: no filter"
    )
    augment: int = Field(default=10, ge=0, description="perturbed copies of each retained embedding; 0: none")
    augment_rank: int = Field(default=1, ge=1, description="directions of W0 that they are perturbed in")
    retain_empty: bool = Field(default=True, description="begin of text and the empty prompt stay exactly")
    null_centroids: int = Field(
        default=3, ge=1, description="means of clusters that stand for the empty prompt's embeddings"
    )


def concept_and_anchor(base: Base, concept: Concept, settings: Settings) -> tuple[Tensor, Tensor]:
    """C_1 and C_* (D, n), float64, in pairs that stand equally far from the end; each column weighs 1/n in C C^T."""
    found = text_pairs(base, anchored(concept, settings), settings.tokens == "last_and_later")
    c_1, c_a = torch.cat([torch.stack((c[: len(a)], a[: len(c)])) for c, a in found], dim=1)
    return c_1.T / len(c_1) ** 0.5, c_a.T / len(c_a) ** 0.5


def anchored(concept: Concept, settings: Settings) -> Concept:
    """The concept with its anchor's prompts as the neutral ones."""
    prompts = anchor_prompts(concept, settings.anchor, settings.anchor_concept)
    return concept.model_copy(update={"neutral": prompts})


def pooled_concept_and_anchor(base: Base, concept: Concept, settings: Settings) -> tuple[Tensor, Tensor]:
    """The same of what pooled readers are given: a column per template."""
    c_1, c_a = pooled_pairs(base, anchored(concept, settings))
    return c_1.T / len(c_1) ** 0.5, c_a.T / len(c_a) ** 0.5


def retained_embeds(base: Base, prompts: Sequence[str], tokens: str) -> list[Tensor]:
    """Embeddings (n, D), float64, of each retained prompt."""
    found = []
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        firsts = [[encoder.prefix for encoder in base.segments()]] * len(chunk)
        starts = firsts if tokens == "all" else last_positions(base, chunk)
        found += [torch.cat(segments) for segments in embeds_from(base, chunk, starts, tokens != "last")]
    return found


def retained_pooled(base: Base, prompts: Sequence[str]) -> list[Tensor]:
    """What pooled readers are given for each retained prompt, (1, D) in float64."""
    chunks = (prompts[start : start + CHUNK] for start in range(0, len(prompts), CHUNK))
    return [row for chunk in chunks for row in base.read(base.encode(chunk))["pooled"].double().cpu()]


def centroids(points: Tensor, count: int) -> Tensor:
    """At most `count` means of clusters of points (n, D), (count, D): k-means (Lloyd 1982) from points evenly apart."""
    means = points[torch.linspace(0, len(points) - 1, min(count, len(points))).long()]
    for _ in range(CLUSTER_STEPS):
        nearest = torch.cdist(points, means).argmin(1)
        means = torch.stack([points[nearest == i].mean(0) for i in nearest.unique().tolist()])
    return means


def invariants(base: Base, settings: Settings) -> Tensor:
    """C_2 (D, m), float64: begin of text, and centroids of the empty prompt's other embeddings."""
    empty = base.encode([""])
    read, speaks = base.read(empty)["text"][0].double().cpu(), base.speaking(empty)[0].cpu()
    if not settings.retain_empty:
        return read.new_empty(read.shape[1], 0)
    return torch.cat([read[~speaks][:1], centroids(read[speaks], settings.null_centroids)]).T


def pooled_invariants(base: Base, settings: Settings) -> Tensor:
    """C_2 (D, m), float64, of pooled readers: what they are given for the empty prompt and without a prompt."""
    kept = torch.cat([base.read(empty)["pooled"][0] for empty in base.empties()]).double().cpu().T
    return kept if settings.retain_empty else kept[:, :0]


def erasing_alone(c_1: Tensor, c_a: Tensor, ridge: float) -> Tensor:
    """(C_* - C_1) C_1^T (C_1 C_1^T + lambda I)^-1 (D, D): D_erase = W0 times it."""
    system = with_ridge(c_1 @ c_1.T, ridge)
    return torch.linalg.solve(system, c_1 @ (c_a - c_1).T).T  # as system is symmetric


def influenced(d_erase: Tensor, c_0: Tensor, scale: float) -> Tensor:
    """The columns of C_0 (D, n) whose prior shift |D_erase c| is above `scale` times their mean."""
    shift = (d_erase @ c_0).norm(dim=0)
    return c_0[:, shift > scale * shift.mean()]


def augmented(weight: Tensor, c_0: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """c + P_min eps for every column of C_0, `augment` times, (D, augment * n)."""
    _, _, directions = torch.linalg.svd(weight, full_matrices=False)
    u_min = directions[-settings.augment_rank :]  # (r, D)
    copies = c_0.repeat(1, settings.augment)
    eps = torch.randn(copies.shape, generator=generator, dtype=copies.dtype)
    return copies + u_min.T @ (u_min @ eps)


def refined(weight: Tensor, d_erase: Tensor, c_0: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """C_0 as it is retained for one projection: filtered, augmented, filtered again."""
    if settings.filter_scale:
        c_0 = influenced(d_erase, c_0, settings.filter_scale)
    if not settings.augment or not c_0.shape[1]:
        return c_0
    more = augmented(weight, c_0, settings, generator)
    return torch.cat([c_0, influenced(d_erase, more, settings.filter_scale) if settings.filter_scale else more], dim=1)


def held_directions(c_0: Tensor, threshold: float) -> Tensor:
    """An orthonormal basis (D, r) of what is outside U: eigenvectors of C_0 C_0^T at or above the threshold."""
    if not c_0.shape[1]:
        return c_0
    values, vectors = torch.linalg.eigh(c_0 @ c_0.T)
    zero = RANK_TOLERANCE**2 * values[-1]
    return vectors[:, (values > zero) & (values >= threshold * values.mean())]


def edit(
    weights: Mapping[str, Tensor], c_1: Tensor, c_a: Tensor, c_0: Tensor, c_2: Tensor, settings: Settings, seed: int
) -> tuple[dict[str, Tensor], float]:
    """dW, float32, of every projection by the name of its weight W0 (d_out, D); and the mean rank that was left to it.

    The paper's P M (...) is the inverse of C_1 C_1^T + lambda I on what is orthogonal to held directions and to C_2.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "augment"))
    erasing, wanted = erasing_alone(c_1, c_a, settings.ridge), (c_a - c_1) @ c_1.T
    system = with_ridge(c_1 @ c_1.T, settings.ridge)
    delta, ranks = {}, []
    for name, weight in weights.items():
        w0 = weight.detach().double().cpu()
        if settings.projections == "values" and name.endswith("to_k.weight"):
            delta[name] = torch.zeros_like(w0).float()
            continue
        held = held_directions(refined(w0, w0 @ erasing, c_0, settings, generator), settings.threshold)
        kept = torch.cat([held, c_2], dim=1)
        delta[name] = (settings.scale * w0 @ wanted @ constrained_inverse(system, kept)).float()
        ranks.append(null_space(kept).shape[1])
    return delta, sum(ranks) / len(ranks)


@dataclass(frozen=True)
class Group:
    """What the edit of one group of readers is made from, for all concepts."""

    weights: dict[str, Tensor]  # W0 by name
    retained: list[Tensor]  # of each prompt, (n, D)
    invariants: Tensor  # C_2 (D, m)
    pairs: Callable[[Base, Concept, Settings], tuple[Tensor, Tensor]]  # C_1 and C_* (D, n) of a concept


def reader_groups(base: Base, weights: Mapping[str, Tensor], prompts: Sequence[str], settings: Settings) -> list[Group]:
    groups = base.groups(weights)
    own = {g: {name: w for name, w in weights.items() if groups[name] == g} for g in dict.fromkeys(groups.values())}
    found = []
    if "text" in own:
        retained = retained_embeds(base, prompts, settings.retain_tokens)
        found.append(Group(own["text"], retained, invariants(base, settings), concept_and_anchor))
    if "pooled" in own:
        retained = retained_pooled(base, prompts)
        found.append(Group(own["pooled"], retained, pooled_invariants(base, settings), pooled_concept_and_anchor))
    return found


@torch.no_grad()
def erase(context: Context, settings: Settings) -> list[Erasure]:
    base = context.base
    prompts = (*settings.retain, *sampled_prompts(base.profile.vocabulary, settings.retain_prompts, seed=0))
    groups, facts = reader_groups(base, context.delta.base_tensors(), prompts, settings), []
    for slot, (concept, seed) in enumerate(zip(context.concepts, context.seeds, strict=True)):
        delta: dict[str, Tensor] = {}
        ranks = []
        for group in groups:
            c_1, c_a = group.pairs(base, concept, settings)
            others = [c for p, c in zip(prompts, group.retained, strict=True) if not mentioned(concept, p)]
            c_0 = torch.cat(others).T if others else c_1.new_empty(len(c_1), 0)
            part, rank = edit(group.weights, c_1, c_a, c_0, group.invariants, settings, seed)
            delta |= part
            ranks.append(rank)
        context.engine.load(delta, slot)
        facts.append({"null_space": ranks[0]})
    return erasures(context, settings.trained_weights, facts)


def cost(settings: Settings, concept: Concept) -> Cost:
    return Cost()  # prompts are encoded, and a system of D equations is solved for every projection


def problems(settings: Settings, concept: Concept) -> list[str]:
    return lacks_similar(concept, "anchor", settings.anchor, settings.anchor_concept)
