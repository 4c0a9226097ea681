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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advanchor.artifacts import check_base, unpack
from advanchor.concepts import Concept
from advanchor.fusion.statistics import GRAM, OWN
from advanchor.guard import with_ridge
from advanchor.models.base import Base
from advanchor.text import Prompt, fill, tokenize

PRIOR = 300  # concepts' worth of weight that retained prompts have beyond that of as many concepts as are erased
RAMP = 0.1  # width of a gate's ramp, in scores
STEEP = 60.0  # gain in front of the activation: at this, its bend is a hundredth of a score wide
UP, DOWN = "fc1", "fc2"


class TextEncoderError(ValueError):
    """A text encoder that is not made of CLIP's layers."""


def clip_parts(text_encoder: nn.Module) -> tuple[str, nn.ModuleList, nn.LayerNorm]:
    """The name of a CLIP text encoder's layers, the layers, and its final layer norm. Raises TextEncoderError."""
    for prefix in ("", "text_model."):
        try:
            layers = text_encoder.get_submodule(f"{prefix}encoder.layers")
            return f"{prefix}encoder.layers", layers, text_encoder.get_submodule(f"{prefix}final_layer_norm")  # type: ignore[return-value]
        except AttributeError:
            continue
    raise TextEncoderError(f"{type(text_encoder).__name__} has no layers of CLIP's text encoder, which neurons need")


@torch.no_grad()
def hidden_states(base: Base, prompts: Sequence[str | Prompt]) -> tuple[Tensor, Tensor]:
    """(N, L, D) twice: what the last MLP is given, and what the final layer norm is given."""
    _, layers, norm = clip_parts(base.text_encoder)
    given: dict[str, list[Tensor]] = {"mlp": [], "norm": []}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, arguments: given[name].append(arguments[0].float().cpu())

    hooks = [
        layers[-1].mlp.register_forward_pre_hook(keep("mlp")),  # type: ignore[union-attr, operator]
        norm.register_forward_pre_hook(keep("norm")),
    ]
    try:
        for i in range(0, len(prompts), 256):
            base.encode(prompts[i : i + 256])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(given["mlp"]), torch.cat(given["norm"])


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
    ends = [tokenize(base.tokenizer, texts) == base.tokenizer.eos_token_id for texts in (prompts, concept.neutral)]
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
    _, _, norm = clip_parts(base.text_encoder)
    shift, after = before_norm(norm, goal.float().cpu(), h) - h, steps_after(base.concept_tokens(prompts)).cpu()
    covered = (after >= 0) & (after <= reach)
    steps = after[covered].unique()
    own = affine(x[covered])
    return {
        GRAM: own.T @ own / len(own),
        f"{OWN}{concept.name}/x": torch.stack([x[after == k].double().mean(0) for k in steps]),
        f"{OWN}{concept.name}/v": torch.stack([shift[after == k].double().mean(0) for k in steps]),
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


def solve(
    base: Base,
    totals: Mapping[str, Tensor],
    retained: Tensor,
    ridge: float,
    threshold: float,
    strengths: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """What is appended to the last MLP, float32, by the names of its weights: rows of fc1, columns of fc2.

    strengths: by concept, what its threshold is divided by.
    retained: gamma (n + PRIOR) times `retained_gram`. With less of it, the discriminants of a few concepts would tell
    their own positions from each other, and would not know them in other contexts.
    """
    mu = retained[:-1, -1] / retained[-1, -1]
    centre = torch.cat([torch.eye(len(mu), dtype=torch.float64), -mu[:, None]], 1)  # x with a 1 behind -> x - mu
    system = with_ridge(centre @ (totals[GRAM] + retained) @ centre.T, ridge)
    x, v = (torch.cat([totals[name] for name in sorted(totals) if name.endswith(f"/{kind}")]) for kind in "xv")
    w = torch.linalg.solve(system, (x - mu).T).T
    w = w / (w * (x - mu)).sum(1, keepdim=True)
    bias = -(w @ mu)
    owners = [name.removeprefix(OWN).removesuffix("/x") for name in sorted(totals) if name.endswith("/x")]
    parts = [(threshold / (strengths or {}).get(name, 1.0), len(totals[f"{OWN}{name}/x"])) for name in owners]
    opens = torch.cat([torch.full((rows,), value, dtype=torch.float64) for value, rows in parts])
    names = mlp_names(base.text_encoder)
    return {
        names[f"{UP}.weight"]: STEEP * torch.cat([w, w]).float(),
        names[f"{UP}.bias"]: STEEP * torch.cat([bias - opens, bias - opens - RAMP]).float(),
        names[f"{DOWN}.weight"]: torch.cat([v, -v]).T.contiguous().float() / (STEEP * RAMP),
    }


def mlp_names(text_encoder: nn.Module) -> dict[str, str]:
    """Full names of the last MLP's tensors that grow, by their short ones."""
    prefix, layers, _ = clip_parts(text_encoder)
    return {name: f"{prefix}.{len(layers) - 1}.mlp.{name}" for name in (f"{UP}.weight", f"{UP}.bias", f"{DOWN}.weight")}


def mlp_tensors(text_encoder: nn.Module) -> dict[str, Tensor]:
    """The last MLP's tensors that grow, by their full names."""
    return {name: text_encoder.get_parameter(name).detach().cpu() for name in mlp_names(text_encoder).values()}


@torch.no_grad()
def grow(text_encoder: Any, neurons: Mapping[str, Tensor]) -> None:
    """Append neurons to the last MLP, and silent ones to all others: the configuration knows one width for all."""
    prefix, layers, _ = clip_parts(text_encoder)
    added = len(neurons[f"{prefix}.{len(layers) - 1}.mlp.{UP}.bias"])
    for number, layer in enumerate(layers):
        up, down = (getattr(layer.mlp, name) for name in (UP, DOWN))
        name = f"{prefix}.{number}.mlp"
        rows = neurons.get(f"{name}.{UP}.weight", torch.zeros(added, up.in_features))
        bias = neurons.get(f"{name}.{UP}.bias", torch.zeros(added))
        columns = neurons.get(f"{name}.{DOWN}.weight", torch.zeros(down.out_features, added))
        setattr(
            layer.mlp, UP, linear(torch.cat([up.weight, rows.to(up.weight)]), torch.cat([up.bias, bias.to(up.bias)]))
        )
        setattr(layer.mlp, DOWN, linear(torch.cat([down.weight, columns.to(down.weight)], 1), down.bias))
    text_encoder.config.intermediate_size += added


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A frozen layer of these weights (d_out, d_in)."""
    made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.weight, made.bias = (nn.Parameter(tensor.detach(), requires_grad=False) for tensor in (weight, bias))
    return made


def apply_neurons(text_encoder: Any, path: Path, scale: float = 1.0) -> None:
    """Put a file of neurons on a stock text encoder. Raises ArtifactError, and changes nothing, if it is another's."""
    tensors, metadata = unpack(path.read_bytes(), str(path))
    check_base(text_encoder, tensors, metadata, path)
    grow(text_encoder, {name: tensor * scale if DOWN in name else tensor for name, tensor in tensors.items()})


@contextmanager
def grown(text_encoder: Any, neurons: Mapping[str, Tensor]) -> Iterator[None]:
    """The text encoder has these neurons inside this block, and is as it was after it."""
    _, layers, _ = clip_parts(text_encoder)
    before = [(layer.mlp, getattr(layer.mlp, UP), getattr(layer.mlp, DOWN)) for layer in layers]
    width = text_encoder.config.intermediate_size
    grow(text_encoder, neurons)
    try:
        yield
    finally:
        for mlp, up, down in before:
            setattr(mlp, UP, up)
            setattr(mlp, DOWN, down)
        text_encoder.config.intermediate_size = width
