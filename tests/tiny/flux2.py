"""FLUX.2: klein and dev."""

from typing import Any

import diffusers
import tokens
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from advanchor.bench.published import backbone

D: Any = diffusers  # whose annotations are narrower than what it takes


def flux2_parts(name: str) -> Any:
    tr = backbone(name, toy=True)
    vae = D.AutoencoderKLFlux2(
        block_out_channels=(8,) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=64
    )
    return tr, vae, D.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def flux2_klein() -> Any:
    t = tokens.qwen()
    enc = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(t),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    tr, vae, sched = flux2_parts("FLUX.2-klein-4B")
    pipeline = D.Flux2KleinPipeline(scheduler=sched, vae=vae, text_encoder=enc, tokenizer=t, transformer=tr)
    pipeline.tokenizer_max_length = 64  # of prompts: fewer than the width of the embeddings
    return pipeline


def flux2_dev() -> Any:
    vocab, merges = tokens.byte_bpe(
        [
            "<s>",
            "</s>",
            "<pad>",
            "<unk>",
            "[INST]",
            "[/INST]",
            "[SYSTEM_PROMPT]",
            "[/SYSTEM_PROMPT]",
            "[IMG]",
            "[IMG_BREAK]",
            "[IMG_END]",
        ]
    )
    tok = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="<pad>",
        bos_token="<s>",
        additional_special_tokens=[
            "[INST]",
            "[/INST]",
            "[SYSTEM_PROMPT]",
            "[/SYSTEM_PROMPT]",
            "[IMG]",
            "[IMG_BREAK]",
            "[IMG_END]",
        ],
        model_max_length=1024,
    )
    tok.padding_side = "left"
    template = "{{ '<s>' }}{%- for m in messages %}{%- if m['role']=='system' %}{{ '[SYSTEM_PROMPT]' + m['content'][0]['text'] + '[/SYSTEM_PROMPT]' }}{%- else %}{{ '[INST]' + m['content'][0]['text'] + '[/INST]' }}{%- endif %}{%- endfor %}"
    tok.chat_template = template
    proc = tok  # PixtralProcessor asks for torchvision
    cfg = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(tok),
            "hidden_size": 160,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
            "head_dim": 8,
        },
        image_token_index=vocab["[IMG]"],
    )
    tr, vae, sched = flux2_parts("FLUX.2-dev")
    encoder = Mistral3ForConditionalGeneration(cfg)
    pipeline = D.Flux2Pipeline(scheduler=sched, vae=vae, text_encoder=encoder, tokenizer=proc, transformer=tr)
    pipeline.tokenizer_max_length = 400
    return pipeline
