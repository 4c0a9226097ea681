"""Anchors as neurons: fusion in the last MLP of the text encoder, where a threshold tells names apart.

    x         what that MLP is given at one position of a prompt
    s(x)      = w (x - mu): a concept's own position k tokens after its name scores 1, retained prompts' mean 0
    g(s)      = 0 below `threshold`, 1 above threshold + RAMP, straight between
    h        <- h + sum_ik g(s_ik(x)) v_ik

One w and one v for every concept i and k. w is least squares' (Fisher's discriminant against everything else that is in
the sums); v leads to the hidden state whose final layer norm is the concept's anchor. g is two neurons of the MLP's own
activation, which far from its bend is a ramp, so that the result is a text encoder like any other, only wider.
A linear edit cannot do this: hundreds of names share few directions, and it moves whatever lies along them. That single
neurons correct what a transformer says is Transformer-Patcher's (Huang et al. 2023, arXiv 2301.09785).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from advanchor.concepts import Concept
from advanchor.fusion.anchors import anchor_of, anchor_problem
from advanchor.fusion.member import Member, Part, Workshop
from advanchor.fusion.neurons import DOWN, UP, clip_parts, hidden_states, mlp_names, mlp_tensors, text_encoder
from advanchor.fusion.retained import Retained, RetainSettings
from advanchor.fusion.statistics import GRAM, OWN
from advanchor.models.base import Base
from advanchor.models.text import fill
from advanchor.training.projection import with_ridge

NEEDS = ("anchor",)
PRIOR = 300  # concepts' worth of weight that retained prompts have beyond that of as many concepts as are erased
RAMP = 0.1  # width of a gate's ramp, in scores
STEEP = 60.0  # gain in front of the activation: at this, its bend is a hundredth of a score wide
X, V = f"{OWN}x/", f"{OWN}v/"  # what a concept's own tensors are called, before its name


class Settings(RetainSettings):
    towards: Literal["anchor", "neutral"] = Field(
        default="anchor", description="what neurons lead to: the learned anchor, or the neutral prompt"
    )
    reach: int = Field(default=8, ge=0, description="neurons cover so many tokens after a concept's last one, too")
    threshold: float = Field(
        default=0.57,
        gt=0,
        lt=1,
        description="score at which neurons begin to speak: 1 is the concept, 0 what is retained",
    )


def problem(method: Mapping[str, Any]) -> str:
    return anchor_problem(method, "neurons")


def contribution(base: Base, member: Member, tensors: Mapping[str, Tensor], settings: Settings) -> Mapping[str, Tensor]:
    concept = member.concept
    if settings.towards == "neutral":
        goal = neutral_embeds(base, concept)
    else:
        goal = anchor_of(base, member, tensors)[1].prompt_embeds
    return neuron_statistics(base, concept, goal, settings.reach)


def weight(member: Member) -> float:
    return 1.0  # its scale moves its threshold


def solve(
    base: Base,
    totals: Mapping[str, Tensor],
    members: Mapping[str, Member],
    retained: Retained,
    settings: Settings,
    workshop: Workshop,
) -> Part:
    gram = settings.retain_weight * (len(members) + PRIOR) * retained_gram(base, retained.weights)
    scales = {name: member.scale for name, member in members.items()}
    rows = solve_neurons(base, totals, gram, settings.ridge, settings.threshold, scales)
    facts = {"num_retained_prompts": len(retained.weights)}
    return Part(mlp_tensors(text_encoder(base)), neurons=rows, facts=facts)


def repair(member: Member) -> Literal["strengthen"]:
    """Its neurons speak earlier."""
    return "strengthen"


def steps_after(positions: Tensor) -> Tensor:
    """How many tokens after the concept's last one each position is, -1 before it; both (B, L).

    positions: of `Base.concept_tokens`.
    """
    index = torch.arange(positions.shape[1], device=positions.device)
    latest = torch.where(positions == positions.max(), index, -1).cummax(1).values
    return torch.where(latest >= 0, index - latest, -1)


def neutral_embeds(base: Base, concept: Concept) -> Tensor:
    """The neutral prompts' embeddings (templates, L, D), moved so that what follows the concept stands where it did."""
    prompts = [fill(template, concept.name).text for template in concept.templates]
    with torch.no_grad():
        embeds = base.encode(concept.neutral).prompt_embeds
    (encoder,) = base.encoders
    end = encoder.tokenizer.eos_token_id
    ends = [encoder.tokens(texts).input_ids == end for texts in (prompts, concept.neutral)]
    longer = ends[0].int().argmax(1) - ends[1].int().argmax(1)
    index = (torch.arange(embeds.shape[1]) - longer[:, None]).clamp(0, embeds.shape[1] - 1).to(embeds.device)
    return embeds.gather(1, index[..., None].expand_as(embeds))


def before_norm(norm: nn.LayerNorm, embeds: Tensor, like: Tensor) -> Tensor:
    """The hidden states whose layer norm comes nearest to `embeds`, with the mean and the spread of `like`."""
    wanted = (embeds - norm.bias.float().cpu()) / norm.weight.float().cpu()
    wanted = (wanted - wanted.mean(-1, keepdim=True)) / wanted.std(-1, unbiased=False, keepdim=True)
    return wanted * like.std(-1, unbiased=False, keepdim=True) + like.mean(-1, keepdim=True)


def affine(x: Tensor) -> Tensor:
    """(n, D) -> (n, D + 1) in float64: with a 1 behind, so that sums of products hold the number and the mean, too."""
    return torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)


def neuron_statistics(base: Base, concept: Concept, goal: Tensor, reach: int) -> dict[str, Tensor]:
    """A concept's contribution: the Gram matrix of its x, and for every k <= reach the mean of x and of the way to go.

    goal: prompt embeddings (templates, L, D) that the text encoder is to give instead.
    """
    prompts = [fill(template, concept.name) for template in concept.templates]
    x, h = hidden_states(base, prompts)
    _, _, norm = clip_parts(text_encoder(base))
    shift, after = before_norm(norm, goal.float().cpu(), h) - h, steps_after(base.concept_tokens(prompts)).cpu()
    covered = (after >= 0) & (after <= reach)
    steps = after[covered].unique()
    own = affine(x[covered])
    return {
        GRAM: own.T @ own / len(own),
        f"{X}{concept.name}": torch.stack([x[after == k].double().mean(0) for k in steps]),
        f"{V}{concept.name}": torch.stack([shift[after == k].double().mean(0) for k in steps]),
    }


def retained_gram(base: Base, weights: Mapping[str, float]) -> Tensor:
    """(D + 1, D + 1): the weighted mean over prompts of the Gram matrix of their x at all positions but the first."""
    total = torch.zeros((), dtype=torch.float64)
    x, _ = hidden_states(base, list(weights))
    scales = torch.tensor(list(weights.values()), dtype=torch.float64)
    scales = (scales / scales.sum() / (x.shape[1] - 1)).sqrt()
    for rows, scale in zip(x[:, 1:].split(256), scales.split(256), strict=True):
        tokens = (affine(rows.flatten(0, 1)).unflatten(0, rows.shape[:2]) * scale[:, None, None]).flatten(0, 1)
        total = total + tokens.T @ tokens
    return total


def solve_neurons(
    base: Base,
    totals: Mapping[str, Tensor],
    retained: Tensor,
    ridge: float,
    threshold: float,
    scales: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """What is appended to the last MLP, float32, by the names of its weights: rows of fc1, columns of fc2.

    scales: by concept, what its threshold is divided by.
    retained: gamma (n + PRIOR) times `retained_gram`. With less of it, the discriminants of a few concepts would tell
    their own positions from each other, and would not know them in other contexts.
    """
    mu = retained[:-1, -1] / retained[-1, -1]
    centre = torch.cat([torch.eye(len(mu), dtype=torch.float64), -mu[:, None]], 1)  # x with a 1 behind -> x - mu
    system = with_ridge(centre @ (totals[GRAM] + retained) @ centre.T, ridge)
    names = sorted(name.removeprefix(X) for name in totals if name.startswith(X))
    x, v = (torch.cat([totals[kind + name] for name in names]) for kind in (X, V))
    w = torch.linalg.solve(system, (x - mu).T).T
    w = w / (w * (x - mu)).sum(1, keepdim=True)
    bias = -(w @ mu)
    parts = [(threshold / (scales or {}).get(name, 1.0), len(totals[X + name])) for name in names]
    opens = torch.cat([torch.full((rows,), value, dtype=torch.float64) for value, rows in parts])
    tensors = mlp_names(text_encoder(base))
    return {
        tensors[f"{UP}.weight"]: STEEP * torch.cat([w, w]).float(),
        tensors[f"{UP}.bias"]: STEEP * torch.cat([bias - opens, bias - opens - RAMP]).float(),
        tensors[f"{DOWN}.weight"]: torch.cat([v, -v]).T.contiguous().float() / (STEEP * RAMP),
    }
