"""Equal rows of an MMDiT's text as one row, exactly.

No position tells rows of the text apart, so equal ones stay equal through all blocks: n of them are one whose key
weighs n times as much, log(n) added to its scores. Where T5 is left out, StableDiffusion3Pipeline adds 256 zero rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class RepeatedRowAttention:
    """The joint attention of diffusers' JointAttnProcessor2_0, with something added to the scores of every key."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """attention_mask: (B or 1, 1, 1, keys), the picture's keys first."""

        def heads(rows: Tensor, norm: Any = None) -> Tensor:
            own = rows.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return own if norm is None else norm(own)

        picture, text = hidden_states, encoder_hidden_states
        query = heads(attn.to_q(picture), attn.norm_q), heads(attn.add_q_proj(text), attn.norm_added_q)
        key = heads(attn.to_k(picture), attn.norm_k), heads(attn.add_k_proj(text), attn.norm_added_k)
        value = torch.cat([heads(attn.to_v(picture)), heads(attn.add_v_proj(text))], 2)
        query, key = (torch.cat(parts, 2).to(value.dtype) for parts in (query, key))
        mixed = F.scaled_dot_product_attention(query, key, value, attention_mask.to(value.dtype), scale=attn.scale)
        image, words = mixed.transpose(1, 2).flatten(2).split([picture.shape[1], text.shape[1]], 1)
        return attn.to_out[0](image), words if attn.context_pre_only else attn.to_add_out(words)


def last_row_weighs(counts: Tensor, keys: int) -> Tensor:
    """(B,) counts -> (B, 1, 1, keys), what RepeatedRowAttention adds so that the last key counts as many times."""
    return F.pad(counts.log()[:, None, None, None], (keys - 1, 0))


@contextmanager
def repeated_rows(transformer: Any) -> Iterator[None]:
    """Inside this block the joint attentions of an SD3Transformer2DModel take an attention_mask."""
    attentions = [block.attn for block in transformer.transformer_blocks]
    processors = [attention.processor for attention in attentions]
    try:
        for attention in attentions:
            attention.processor = RepeatedRowAttention()
        yield
    finally:
        for attention, processor in zip(attentions, processors, strict=True):
            attention.processor = processor
