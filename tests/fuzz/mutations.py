"""Batches, tables and options gone wrong in ways that a seed decides."""

import random
from collections.abc import Callable
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"
BATCH = """\
model: pocket
output: runs/fuzz
seed: 3
method: &m {name: guarded_anchor, lr: 1e-3, steps: 5, margin: 0.3, trained_weights: cross_attention_kv}
method_by_kind:
  style: {steps: 9, lr: 2.0e-4}
  object: {name: fixed_anchor, anchor: concept, anchor_concept: ring}
concepts:
  - {name: star, kind: object, similar: ring}
  - name: "Van Gogh"
    kind: style
    templates: ["a {} shape", 'art by {}']
    neutral: [a shape, art]
    attributes: {swirls: 0.5, sky: 1}
  - {preset: gallery/mark}
  - {from: table.csv}
evaluate:
  steps: 5
  num_prompts: 2
  scales: [0.5, 1]
  attacks: [prefix]
resources: {device: cpu, gangs: 2, gpus_per_task: auto, deadline_s: 60}
deepspeed: {stage: 1, precision: fp32}
"""
SMALL = "model: pocket\nconcepts:\n  - {name: star, kind: object}\n"
TABLE = 'name,kind,similar\nring,object,star\n"Gogh, late",style,\nmira morwin,identity,\nAC/DC,explicit,x\n'
KEYS = [
    "model", "output", "seed", "method", "method_by_kind", "concepts", "evaluate", "resources", "deepspeed", "name",
    "kind", "templates", "neutral", "attributes", "similar", "preset", "count", "from", "lr", "steps", "batch_size",
    "trained_weights", "anchor", "anchor_concept", "scales", "attacks", "scorer", "clip", "others", "device",
    "gangs", "gpus_per_task", "concepts_per_pack", "deadline_s", "stage", "precision", "offload", "style", "object",
    "doses", "strength", "control",
]  # fmt: skip
VALUES = [
    "0", "-1", "1.5", "1e400", "-.inf", ".nan", ".inf", "9" * 400, "9" * 5000, "0x_", "0b_", "1:2:3", "1e", "true",
    "no", "null", "~", "[]", "{}", "[[]]", "{a: b}", "''", '""', "2024-13-45", "2024-01-01", "!!int abc",
    "!!float x", "!!bool x", "!!timestamp x", "!!binary x", "!!set {a}", "!!python/object:os.system x", "!x y",
    "&a [*a]", "*m", "*nobody", "&m", "<<", "=", "? x", "- x", '"\\0"', '"\\ud800"', '"\\U00110000"',
    '"\\e]0;x\\a"', '"a\\nb"', "\u202eabc", "\u200b", "\u00a0", "\ufeff", "\N{SNOWMAN}", "x" * 3000, "'1'",
    "%s {} {}", "{} {}", "a {}", "../../etc/passwd", "/dev/zero", "/dev/null", "~nosuchuser/x", "github://x",
    "nowhere://x", "zip://x", "s3://", "://", "file:///", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ud83d",
    "-", ":", ",", "#", "@", "`", "%", "|", ">", "adv_anchor", "esd", "uce", "speed", "continue_from", "retune",
    "hardened_anchor", "cross_attention", "gallery/styles", "pocket/pocket",
]  # fmt: skip
CHARACTERS = (
    "{}[]:,-#&*!|>'\"%@`?\\ \t\n\r\x00\x0b\x1b\x7f\x85\u00a0\u200d\u202e\u2028\ud800\ufeff\ufffe09aZé日\N{SNOWMAN}"
)

Change = Callable[[random.Random, str], str]


def place(rng: random.Random, text: str) -> int:
    return rng.randrange(len(text) + 1)


def insert(rng: random.Random, text: str) -> str:
    at = place(rng, text)
    return text[:at] + "".join(rng.choices(CHARACTERS, k=rng.choice((1, 1, 1, 3, 20)))) + text[at:]


def delete(rng: random.Random, text: str) -> str:
    at = place(rng, text)
    return text[:at] + text[at + rng.choice((1, 1, 2, 5, 40)) :]


def hostile_value(rng: random.Random, text: str) -> str:
    at = place(rng, text)
    return text[:at] + rng.choice(VALUES) + text[at + rng.choice((0, 1, 3, 6)) :]


def another_value(rng: random.Random, text: str) -> str:
    """What comes after a colon becomes something else."""
    colons = [i for i in range(len(text)) if text[i : i + 2] == ": "]
    if not colons:
        return text
    start = rng.choice(colons) + 2
    end = next((i for i in range(start, len(text)) if text[i] in ",}\n]"), len(text))
    return text[:start] + rng.choice(VALUES) + text[end:]


def another_key(rng: random.Random, text: str) -> str:
    found = [key for key in KEYS if key in text]
    return text.replace(rng.choice(found), rng.choice(KEYS), 1) if found else text


def lines_moved(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.choice((0, 1, 1, 2))):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(("", " ", "  ")) + line)
    return "\n".join(lines)


def cut(rng: random.Random, text: str) -> str:
    return text[: place(rng, text)]


def repeated(rng: random.Random, text: str) -> str:
    start, end = sorted((place(rng, text), place(rng, text)))
    return text[:end] + text[start:end] * rng.choice((1, 2, 30)) + text[end:]


def nested(rng: random.Random, text: str) -> str:
    at, depth, sign = (
        place(rng, text),
        rng.choice((3, 60, 1500)),
        rng.choice(("[", "{a: ", "- ", "? ", "&a [", "!!seq [", "{")),
    )
    return text[:at] + sign * depth + text[at:]


def aliased(rng: random.Random, text: str) -> str:
    levels, wide = rng.choice((2, 10)), rng.choice((2, 9))
    rows = ["a0: &a0 [" + ", ".join("x" * wide) + "]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * wide)}]" for i in range(1, levels)]
    merged = rng.choice(("", "\nmethod_by_kind: *", "\n<<: *", "\nconcepts: *"))
    return text + "\n" + "\n".join(rows) + (f"{merged}a{levels - 1}" if merged else "") + "\n"


CHANGES: list[Change] = [
    insert, insert, delete, hostile_value, hostile_value, another_value, another_value, another_value, another_key,
    lines_moved, cut, repeated, nested, aliased,
]  # fmt: skip


def mutated(rng: random.Random, text: str) -> str:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        text = rng.choice(CHANGES)(rng, text)
    return text


def option(rng: random.Random) -> str:
    """What might follow --set."""
    key = ".".join(rng.choices(KEYS, k=rng.choice((1, 2, 2, 3, 30))))
    value = rng.choice(VALUES) if rng.random() < 0.7 else mutated(rng, "{a: [b, c]}")
    return mutated(rng, f"{key}={value}") if rng.random() < 0.2 else f"{key}={value}"


def table(rng: random.Random) -> str:
    text = mutated(rng, TABLE)
    if rng.random() < 0.3:
        cells = text.split(",")
        cells[rng.randrange(len(cells))] = rng.choice([*VALUES, '"', '"' + "x" * 140_000, '"a\nb"', "x" * 140_000])
        text = ",".join(cells)
    return text
