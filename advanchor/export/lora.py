"""A delta as a LoRA: dW ~ B A by a truncated SVD that counts what the edit does to its own concepts' prompts.

A plain SVD minimises |dW - B A|; what pictures depend on is (dW - B A) E for the prompts' embeddings E. So with
S = (E E^T + ridge)^(1/2), the SVD is taken of dW S (Eckart and Young 1936), and S is divided out of A again:

    dW S = U diag(s) V^T,    B = U_r diag(s_r)^(1/2),    A = diag(s_r)^(1/2) V_r^T S^-1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advanchor.training.projection import with_ridge

RANKS = (4, 8, 16, 32, 64, 128)
RIDGE = 1e-2  # of the Gram matrix, as a share of its mean eigenvalue: other prompts count a little as well


class ExportError(ValueError):
    """Something that this format cannot carry, or that came out too far from the erasure."""


@dataclass(frozen=True)
class Lora:
    """Factors of every weight that a delta changes."""

    rank: int
    error: float  # |(dW - B A) S| / |dW S| over all weights of a group, of the worst group
    factors: dict[str, tuple[Tensor, Tensor]]  # by the weight's name: A (r, in) and B (out, r), float32

    @property
    def layers(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The factors by the layer's name."""
        return {name.removesuffix(".weight"): pair for name, pair in self.factors.items()}


def weighting(gram: Tensor) -> tuple[Tensor, Tensor]:
    """S and S^-1 (D, D), float64, of E E^T (D, D)."""
    values, vectors = torch.linalg.eigh(with_ridge(gram.double(), RIDGE))
    root = values.clamp_min(1e-30).sqrt()
    return vectors * root @ vectors.T, vectors / root @ vectors.T


def decompose(
    delta: Mapping[str, Tensor], grams: Mapping[str, Tensor], tolerance: float, largest: int = RANKS[-1]
) -> Lora:
    """The LoRA of the smallest rank of RANKS whose error is within `tolerance`.

    delta: dW (out, in) by weight name. grams: E E^T (in, in) of what the concepts' prompts give to a weight, by its
    name; weights of one group share one. A weight without has a plain SVD. Raises ExportError.
    """
    if biases := [name for name, dw in delta.items() if dw.ndim != 2]:
        raise ExportError(f"a LoRA carries no {biases[0]!r}: only whole weight matrices; use --format diffusers")
    if not delta:
        raise ExportError("there is no delta of the denoiser: neurons live in the text encoder; use --format diffusers")
    roots = {id(gram): weighting(gram) for gram in {id(gram): gram for gram in grams.values()}.values()}
    groups: dict[int | None, dict[str, tuple[Sequence[Tensor], Tensor | None]]] = {}
    for name, dw in delta.items():
        group = id(grams[name]) if name in grams else None
        s, s_inverse = roots[group] if group is not None else (None, None)
        weighted = dw.double().cpu() if s is None else dw.double().cpu() @ s
        groups.setdefault(group, {})[name] = torch.linalg.svd(weighted, full_matrices=False), s_inverse
    error = float("inf")
    for rank in (rank for rank in RANKS if rank <= largest):
        error = max(lost([values for (_, values, _), _ in parts.values()], rank) for parts in groups.values())
        if error <= tolerance:
            factors = {name: truncated(*part, rank) for parts in groups.values() for name, part in parts.items()}
            return Lora(rank, error, {name: factors[name] for name in delta})
    raise ExportError(f"rank {largest} leaves an error of {error:.2%}, above the {tolerance:.2%} that --error allows")


def lost(values: Sequence[Tensor], rank: int) -> float:
    """The share of weights with these singular values that a rank leaves out, as a norm."""
    whole = sum(float(own.square().sum()) for own in values)
    return (sum(float(own[rank:].square().sum()) for own in values) / whole) ** 0.5 if whole else 0.0


def truncated(part: Sequence[Tensor], s_inverse: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r), float32, of an SVD (U, s, V^T)."""
    u, values, v = part
    root = values[:rank].sqrt()
    a = root[:, None] * v[:rank]
    return (a if s_inverse is None else a @ s_inverse).float().contiguous(), (u[:, :rank] * root).float().contiguous()


def peft(factors: Mapping[str, tuple[Tensor, Tensor]], component: str) -> dict[str, Tensor]:
    """PEFT's names, which diffusers and ComfyUI read; component: "unet" or "transformer"."""
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in factors.items():
        tensors |= {f"{component}.{layer}.lora_A.weight": a, f"{component}.{layer}.lora_B.weight": b}
    return tensors


def kohya(factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """sd-scripts' form, by the stems of their names (export/names.py), with alpha = rank."""
    tensors: dict[str, Tensor] = {}
    for stem, (a, b) in factors.items():
        tensors |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}
        tensors[f"{stem}.alpha"] = torch.tensor(float(len(a)))
    return tensors
