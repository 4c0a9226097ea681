"""Tokenizers of every family, trained here on a few hundred sentences."""

import inspect
import json
import random
from typing import Any

from diffusers import SanaPipeline
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import CLIPTokenizer, GemmaTokenizer, Qwen2Tokenizer, T5Tokenizer


def corpus() -> list[str]:
    r = random.Random(0)
    things = [
        "star",
        "heart",
        "dog",
        "cat",
        "painting",
        "photo",
        "church",
        "parachute",
        "house",
        "tree",
        "river",
        "Van",
        "Gogh",
        "Mona",
        "Lisa",
        "Taylor",
        "Swift",
        "robot",
    ]
    adj = ["red", "blue", "dotted", "striped", "old", "new", "large", "small", "famous", "beautiful"]
    return [
        f"a {r.choice(adj)} {r.choice(things)} {r.choice(['in the style of', 'by', 'with', 'near'])} {r.choice(things)} {r.choice(things)}"
        for _ in range(1500)
    ]


def clip(length: int = 77, pad: str | None = None) -> CLIPTokenizer:
    learner = CLIPTokenizer().backend_tokenizer
    learner.train_from_iterator(
        corpus(),
        BpeTrainer(
            vocab_size=800,
            min_frequency=5,
            show_progress=False,
            initial_alphabet=ByteLevel.alphabet(),
            end_of_word_suffix="</w>",
        ),
    )
    merges: Any = [tuple(p) for p in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(b + "</w>" for b in alphabet), *("".join(p) for p in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocab = {p: i for i, p in enumerate(pieces)}
    kw = {"pad_token": pad} if pad else {}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length, **kw)


def t5(length: int = 512) -> T5Tokenizer:
    tok = Tokenizer(Unigram())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    tok.train_from_iterator(
        corpus(),
        UnigramTrainer(
            vocab_size=300, show_progress=False, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
        ),
    )
    vocab = [tuple(v) for v in json.loads(tok.to_str())["model"]["vocab"]]
    vocab += [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    return T5Tokenizer(vocab=vocab, model_max_length=length)


def byte_bpe(specials: list[str]) -> tuple[dict[str, int], Any]:
    tok = Tokenizer(BPE())
    tok.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tok.train_from_iterator(
        corpus(),
        BpeTrainer(vocab_size=700, min_frequency=5, show_progress=False, initial_alphabet=sorted(ByteLevel.alphabet())),
    )
    model = json.loads(tok.to_str())["model"]
    vocab, merges = dict(model["vocab"]), [tuple(m) for m in model["merges"]]
    for s in specials:
        vocab[s] = len(vocab)
    return vocab, merges


QWEN_TEMPLATE = """{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"""


def qwen(length: int = 1024) -> Qwen2Tokenizer:
    vocab, merges = byte_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    tok = Qwen2Tokenizer(
        vocab=vocab, merges=merges, model_max_length=length, additional_special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tok.chat_template = QWEN_TEMPLATE
    return tok


def gemma(length: int = 300) -> GemmaTokenizer:
    """It also knows the words that Sana's pipeline puts in front of every prompt, so that those are few tokens."""
    default = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    tok = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(pattern="▁", behavior="merged_with_next", invert=False)
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] + [f"<0x{i:02X}>" for i in range(256)]
    tok.train_from_iterator(
        corpus() + 10 * list(default),
        BpeTrainer(vocab_size=1600, min_frequency=5, show_progress=False, special_tokens=specials),
    )
    model = json.loads(tok.to_str())["model"]
    merges: Any = [tuple(m) for m in model["merges"]]
    return GemmaTokenizer(vocab=dict(model["vocab"]), merges=merges, model_max_length=length)
