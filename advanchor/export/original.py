"""A pipeline's weights under the names of its makers' own code: what single-file checkpoints hold.

The inverse of diffusers' conversions (loaders/single_file_utils.py); of Stable Diffusion and SDXL as
scripts/convert_diffusers_to_original_*.py of huggingface/diffusers have it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from advanchor.export import original_mmdit
from advanchor.export.lora import ExportError

Named = Iterator[tuple[str, Tensor]]
DENOISER = "model.diffusion_model."

TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def renamed(name: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def unet_places(unet: Any) -> dict[str, str]:
    """Where diffusers' blocks stand among input_blocks and output_blocks."""
    each, found = unet.config.layers_per_block, dict(TOP)
    for i in range(len(unet.down_blocks)):
        for j in range(each):
            found[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{(each + 1) * i + j + 1}.0"
            found[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{(each + 1) * i + j + 1}.1"
        found[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(each + 1) * (i + 1)}.0.op"
    for i, block in enumerate(unet.up_blocks):
        for j in range(each + 1):
            found[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{(each + 1) * i + j}.0"
            found[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{(each + 1) * i + j}.1"
        number = 2 if hasattr(block, "attentions") else 1
        found[f"up_blocks.{i}.upsamplers.0"] = f"output_blocks.{(each + 1) * i + each}.{number}"
    return found


def unet_name(name: str, places: dict[str, str]) -> str:
    """A weight's or a layer's name in Stability's UNet."""
    start = next(old for old in sorted(places, key=len, reverse=True) if f"{name}.".startswith(f"{old}."))
    rest = name.removeprefix(start)
    return f"{places[start]}{renamed(rest, RESNET) if '.resnets.' in start else rest}"


def unet_tensors(unet: Any) -> Named:
    places = unet_places(unet)
    return ((DENOISER + unet_name(name, places), tensor) for name, tensor in unet.state_dict().items())


def vae_tensors(vae: Any) -> Named:
    blocks = len(vae.config.block_out_channels)
    for name, tensor in vae.state_dict().items():
        parts, new = name.split("."), name
        if parts[1] == "down_blocks":
            new = renamed(name, {f"down_blocks.{parts[2]}.resnets": f"down.{parts[2]}.block"})
            new = renamed(new, {f"down_blocks.{parts[2]}.downsamplers.0": f"down.{parts[2]}.downsample"})
        if parts[1] == "up_blocks":
            number = blocks - 1 - int(parts[2])
            new = renamed(name, {f"up_blocks.{parts[2]}.resnets": f"up.{number}.block"})
            new = renamed(new, {f"up_blocks.{parts[2]}.upsamplers.0": f"up.{number}.upsample"})
        new = renamed(new, {"mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2"})
        new = renamed(new, {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut"})
        if "mid_block.attentions.0" in new:
            new = renamed(new.replace("mid_block.attentions.0", "mid.attn_1"), VAE_ATTENTION)
            tensor = tensor[..., None, None] if tensor.ndim == 2 else tensor  # 1 x 1 convolutions
        yield f"first_stage_model.{new}", tensor


def clip_tensors(encoder: Any, prefix: str) -> Named:
    for name, tensor in encoder.state_dict().items():
        bare = name.removeprefix("text_model.")
        yield prefix + (bare if bare.startswith("text_projection.") else f"text_model.{bare}"), tensor


def open_clip_tensors(encoder: Any, prefix: str) -> Named:
    state = encoder.state_dict()
    for name, tensor in state.items():
        if name == "text_projection.weight":
            yield f"{prefix}text_projection", tensor.T
        elif ".q_proj." in name:
            joined = torch.cat([state[name.replace("q_proj", leaf)] for leaf in ("q_proj", "k_proj", "v_proj")])
            leaf = name.rpartition(".")[2]
            yield f"{prefix}{renamed(name, OPEN_CLIP).rpartition('.self_attn')[0]}.attn.in_proj_{leaf}", joined
        elif ".k_proj." not in name and ".v_proj." not in name:
            yield prefix + renamed(name, OPEN_CLIP), tensor


def stable_diffusion(pipeline: Any) -> Named:
    """CLIP of 1.x; 2.x has OpenCLIP's, which its activation tells."""
    yield from unet_tensors(pipeline.unet)
    yield from vae_tensors(pipeline.vae)
    if pipeline.text_encoder.config.hidden_act == "gelu":
        yield from open_clip_tensors(pipeline.text_encoder, "cond_stage_model.model.")
    else:
        yield from clip_tensors(pipeline.text_encoder, "cond_stage_model.transformer.")


def sdxl(pipeline: Any) -> Named:
    yield from unet_tensors(pipeline.unet)
    yield from vae_tensors(pipeline.vae)
    yield from clip_tensors(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
    yield from open_clip_tensors(pipeline.text_encoder_2, "conditioner.embedders.1.model.")


def sd3(pipeline: Any) -> Named:
    """ExportError for a first CLIP with a projection: diffusers reads such files as if it were the identity."""
    projection = pipeline.text_encoder.text_projection.weight
    if not torch.equal(projection, torch.eye(*projection.shape, device=projection.device, dtype=projection.dtype)):
        raise ExportError(
            "an SD3 checkpoint carries no text_projection of text_encoder, and this base's is not the identity: "
            "use --format diffusers"
        )
    yield from ((DENOISER + name, tensor) for name, tensor in original_mmdit.sd3(pipeline.transformer))
    yield from vae_tensors(pipeline.vae)
    own = clip_tensors(pipeline.text_encoder, "text_encoders.clip_l.transformer.")
    yield from ((name, tensor) for name, tensor in own if not name.endswith("text_projection.weight"))
    yield from clip_tensors(pipeline.text_encoder_2, "text_encoders.clip_g.transformer.")
    if pipeline.text_encoder_3 is not None:
        for name, tensor in pipeline.text_encoder_3.state_dict().items():
            yield f"text_encoders.t5xxl.transformer.{name}", tensor


def flux(pipeline: Any) -> Named:
    """The denoiser alone, as Black Forest Labs ship it: encoders and VAE have files of their own."""
    return original_mmdit.flux(pipeline.transformer)


FAMILIES: dict[str, Callable[[Any], Named]] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": sdxl,
    "StableDiffusion3Pipeline": sd3,
    "FluxPipeline": flux,
}


def checkpoint(pipeline: Any) -> dict[str, Tensor]:
    """All tensors of a pipeline's single file, by their names there. ExportError for a family that is not known."""
    kind = type(pipeline).__name__
    if kind not in FAMILIES:
        raise ExportError(f"no names of a single file are known for a {kind}: use --format diffusers")
    return {name: tensor.contiguous() for name, tensor in FAMILIES[kind](pipeline)}
