"""Which Linears of a backbone learn, by the backbone's class: the same in every pipeline that has it.

A backbone's readers are the Linears whose input depends on the prompt alone, not on x_t, t or depth. At them an anchor
is exactly representable, a projection keeps a prompt at every t, and closed forms fuse. They come in groups, which read
different things: "text" the prompt embeddings, "pooled" the pooled ones. An MMDiT's add_k_proj and add_v_proj are no
readers: what they are given depends on x_t.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

Endings = tuple[str, ...]  # of Linears' names: ".attn2.to_k" anywhere, "context_embedder" at the top

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CROSS_KV: Endings = (".attn2.to_k", ".attn2.to_v")
CROSS: Endings = tuple(f".attn2.{leaf}" for leaf in ATTENTION)
ADDED_KV: Endings = (".attn.add_k_proj", ".attn.add_v_proj")


@dataclass(frozen=True)
class Backbone:
    """The Linears of one class of backbones."""

    text: Endings  # readers of prompt embeddings
    pooled: Endings = ()  # readers of pooled prompt embeddings
    others: Mapping[str, Endings] = field(default_factory=dict)  # further values of trained_weights

    @property
    def trained_weights(self) -> dict[str, Endings]:
        """Every value that `trained_weights` can have here."""
        pooled = {"pooled": self.pooled} if self.pooled else {}
        return {"readers": (*self.text, *self.pooled), **pooled, **self.others}


CROSS_ATTENTION: dict[str, Endings] = {"cross_attention_kv": CROSS_KV, "cross_attention": CROSS}
TEXT_EMBEDDER: Endings = ("time_text_embed.text_embedder.linear_1",)
UNET = Backbone(CROSS_KV, ("add_embedding.linear_1",), CROSS_ATTENTION)
CROSS_DIT = Backbone(CROSS_KV, others=CROSS_ATTENTION)
BACKBONES: dict[str, Backbone] = {
    "UNet2DConditionModel": UNET,
    # SD3.5-medium's attn2 is attention among image tokens: it reads no prompt
    "SD3Transformer2DModel": Backbone(("context_embedder",), TEXT_EMBEDDER, {"text_kv": ADDED_KV}),
    "FluxTransformer2DModel": Backbone(("context_embedder",), TEXT_EMBEDDER, {"text_kv": ADDED_KV}),
    "Flux2Transformer2DModel": Backbone(("context_embedder",), others={"text_kv": ADDED_KV}),
    "PixArtTransformer2DModel": CROSS_DIT,
    "SanaTransformer2DModel": CROSS_DIT,
    "QwenImageTransformer2DModel": Backbone(("txt_in",), others={"text_kv": ADDED_KV}),
    "ZImageTransformer2DModel": Backbone(
        ("cap_embedder.1",),
        others={"text_kv": tuple(f"context_refiner.{i}.attention.to_{leaf}" for i in range(16) for leaf in ("k", "v"))},
    ),
}
TRAINED_WEIGHTS = ("cross_attention_kv", "cross_attention", "readers", "text_kv", "pooled")  # all that some base has
READERS_ONLY = ("cross_attention_kv", "readers", "pooled")  # those that are readers on every base that has them


def backbone_of(class_name: str) -> Backbone:
    """ValueError, naming the supported ones, for another class."""
    if class_name not in BACKBONES:
        raise ValueError(f"no readers are known of a {class_name}; they are of {', '.join(BACKBONES)}")
    return BACKBONES[class_name]


def linears(module: nn.Module, endings: Endings) -> list[str]:
    """Names of the Linears with one of these endings, in the module's order."""

    def wanted(name: str) -> bool:
        return any(name.endswith(ending) if ending.startswith(".") else name == ending for ending in endings)

    return [name for name, part in module.named_modules() if isinstance(part, nn.Linear) and wanted(name)]


def choices(module: nn.Module) -> list[str]:
    """What `trained_weights` can be for this backbone: an SD 1.5's UNet has no pooled reader, an SDXL's has one."""
    named = backbone_of(type(module).__name__).trained_weights
    return [name for name in TRAINED_WEIGHTS if name in named and linears(module, named[name])]


def linear_names(module: nn.Module, trained_weights: str) -> list[str]:
    """Names of the Linears that a setting trains, in the backbone's order. ValueError names the choices."""
    known = choices(module)
    if trained_weights not in known:
        raise ValueError(f"trained_weights {trained_weights!r} is not one of {', '.join(known)}, which this base has")
    return linears(module, backbone_of(type(module).__name__).trained_weights[trained_weights])


def reader_groups(module: nn.Module) -> dict[str, list[str]]:
    """Names of all readers, by group: "text" and, where there are some, "pooled"."""
    own = backbone_of(type(module).__name__)
    groups = {"text": linears(module, own.text), "pooled": linears(module, own.pooled)}
    return {group: names for group, names in groups.items() if names}


def reader_group(class_name: str, name: str) -> str | None:
    """The group of the Linear of this name in a backbone of this class; None if it is no reader."""
    own = backbone_of(class_name)
    for group, endings in (("text", own.text), ("pooled", own.pooled)):
        if any(name.endswith(ending) if ending.startswith(".") else name == ending for ending in endings):
            return group
    return None
