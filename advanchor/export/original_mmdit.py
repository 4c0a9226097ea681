"""MMDiTs under their makers' names: SD3's and FLUX.1's transformers, as diffusers' own conversions read them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Named = Iterator[tuple[str, Tensor]]

SD3_TOP = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
}
SD3_BLOCK = {
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
SD3_JOINED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}
FLUX_TOP = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
}
FLUX_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
FLUX_NORMS = {
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
}
FLUX_JOINED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
FLUX_SINGLE = {"norm.linear": "modulation.lin", "proj_out": "linear2"}
FLUX_SINGLE_NORMS = {
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
}
FLUX_SINGLE_JOINED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}


def sd3(transformer: Any) -> Named:
    state = transformer.state_dict()
    last = f"transformer_blocks.{len(transformer.transformer_blocks) - 1}."
    swapped = {f"{last}norm1_context.linear"}  # the last block's is a final layer's
    yield "pos_embed", state["pos_embed.pos_embed"]
    yield from layers(state, SD3_TOP)
    yield from layers(state, {"norm_out.linear": "final_layer.adaLN_modulation.1"}, swapped={"norm_out.linear"})
    for i in range(len(transformer.transformer_blocks)):
        old, new = f"transformer_blocks.{i}.", f"joint_blocks.{i}."
        yield from layers(state, prefixed(SD3_BLOCK, old, new), swapped)
        yield from joined(state, SD3_JOINED, old, new)


def flux(transformer: Any) -> Named:
    state = transformer.state_dict()
    yield from layers(state, FLUX_TOP)
    yield from layers(state, {"norm_out.linear": "final_layer.adaLN_modulation.1"}, swapped={"norm_out.linear"})
    for i in range(len(transformer.transformer_blocks)):
        old, new = f"transformer_blocks.{i}.", f"double_blocks.{i}."
        yield from layers(state, prefixed(FLUX_DOUBLE, old, new))
        yield from ((name, state[own]) for own, name in prefixed(FLUX_NORMS, old, new).items())
        yield from joined(state, FLUX_JOINED, old, new)
    for i in range(len(transformer.single_transformer_blocks)):
        old, new = f"single_transformer_blocks.{i}.", f"single_blocks.{i}."
        yield from layers(state, prefixed(FLUX_SINGLE, old, new))
        yield from ((name, state[own]) for own, name in prefixed(FLUX_SINGLE_NORMS, old, new).items())
        yield from joined(state, FLUX_SINGLE_JOINED, old, new)


def prefixed(table: Mapping[str, str], old: str, new: str) -> dict[str, str]:
    return {old + own: new + name for own, name in table.items()}


def layers(state: State, table: Mapping[str, str], swapped: Collection[str] = ()) -> Named:
    """Weights and biases of those layers of a table that there are; of `swapped` ones scale and shift change places."""
    for own, name in table.items():
        for leaf in ("weight", "bias"):
            if (tensor := state.get(f"{own}.{leaf}")) is not None:
                yield f"{name}.{leaf}", halves(tensor) if own in swapped else tensor


def halves(tensor: Tensor) -> Tensor:
    """The halves in the other order: diffusers has scale before shift, the makers shift before scale."""
    return torch.cat(tensor.chunk(2)[::-1])


def joined(state: State, table: Mapping[str, tuple[str, ...]], old: str, new: str) -> Named:
    """Layers that are one in the makers' code, one below the other."""
    for name, parts in table.items():
        for leaf in ("weight", "bias"):
            if f"{old}{parts[0]}.{leaf}" in state:
                yield f"{new}{name}.{leaf}", torch.cat([state[f"{old}{part}.{leaf}"] for part in parts])
