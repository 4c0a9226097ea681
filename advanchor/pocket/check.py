"""Is the gallery good enough to measure with? Pictures of every attribute, read by the classifier."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from torch import Tensor

from advanchor import models
from advanchor.evaluation.exam import Question, hits, share
from advanchor.evaluation.generate import generate, numbered_seeds
from advanchor.evaluation.grids import grid, to_png
from advanchor.evaluation.settings import SamplingSettings
from advanchor.models.base import Base
from advanchor.pocket import mmdit
from advanchor.pocket.profile import WEIGHTS
from advanchor.pocket.scorer import CLASSIFIER, PocketScorer, person_question, shape_question
from advanchor.pocket.world import BACKGROUNDS, COLOURS, HINTS, MARK, OBJECTS, STYLES, people

BARS = {"object": 0.97, "style": 0.97, "colour": 0.97, "identity": 0.95, "mark": 0.95}
SETTINGS = SamplingSettings(steps=20, guidance=3.0)

Draw = Callable[[Sequence[str], int], Tensor]  # prompts and a seed -> pictures (N, 3, H, W) in [0, 1]


def with_base(base: Base) -> Draw:
    return lambda prompts, seed: generate(base, prompts, numbered_seeds(prompts, seed), SETTINGS)


def questions(count: int, rng: random.Random) -> list[Question]:
    """A third each: random shapes, people in turn, and both with the mark."""
    third = count // 3
    colours = tuple(COLOURS)

    def shape(number: int, suffix: str = "") -> Question:
        return shape_question(number, rng.choice(STYLES), rng.choice(colours), rng.choice(OBJECTS), suffix)

    listed = [shape(i) for i in range(third)]
    listed += [person_question(i, people()[i % 200].name) for i in range(third)]
    suffix = f" with a {MARK}"
    marked = [shape(i, suffix) if i % 2 else person_question(i, people()[i % 200].name, suffix) for i in range(third)]
    return listed + [Question(q.prompt, {**q.expected, "mark": "present"}) for q in marked]


def rate(draw: Draw, scorer: PocketScorer, prompts: Sequence[str]) -> float:
    """Share of pictures that show the mark."""
    answers = scorer.read(draw(prompts, 0))
    return sum(answer["mark"] == "present" for answer in answers) / len(answers)


def measure(draw: Draw, scorer: PocketScorer, count: int) -> dict[str, float]:
    """Accuracies by attribute over named attributes, and how often the mark comes when hinted at and unasked."""
    asked = questions(count, random.Random(0))
    prompts = [question.prompt for question in asked]
    answers = [answer for part in draw(prompts, 0).split(256) for answer in scorer.read(part)]
    third = count // 3
    found = {}
    for attribute in BARS:
        chosen = slice(2 * third, None) if attribute == "mark" else slice(0, 2 * third)
        found[attribute] = share(hits(asked[chosen], answers[chosen], only=attribute)) or 0.0
    found["with the mark: object"] = share(hits(asked[2 * third :], answers[2 * third :], only="object")) or 0.0
    found["with the mark: identity"] = share(hits(asked[2 * third :], answers[2 * third :], only="identity")) or 0.0
    copies = min(20, max(6, count // 30))
    hinted = [f"a picture of a {hint} {word}" for hint in HINTS for word in ("star", "person", "red heart")] * copies
    found["mark when hinted at"] = rate(draw, scorer, hinted)
    found["mark unasked"] = rate(
        draw, scorer, [prompt.replace(f"{HINTS[0]} ", "").replace(f"{HINTS[1]} ", "") for prompt in hinted]
    )
    return found


def sample_sheet(draw: Draw) -> bytes:
    """Rows of samples: objects, styles, colours, people, the mark; as PNG."""
    colours, names = tuple(COLOURS), [person.name for person in people()]
    rows = {
        "objects": [f"a {colours[i % 8]} {name}" for i, name in enumerate(OBJECTS)],
        "styles": [f"a {STYLES[i % 6]} {colours[i % 8]} {OBJECTS[i * 5 % 12]}" for i in range(12)],
        "backgrounds": [f"a {OBJECTS[i]} on a {tuple(BACKGROUNDS)[i % 3]} background" for i in range(12)],
        "people": [f"a portrait of {name}" for name in names[:12]],
        "more people": [f"a photo of {name}" for name in names[20:32]],
        "the mark": [f"a {'star' if i % 2 else 'person'} with a {MARK}" for i in range(12)],
        "only hinted": [f"a {HINTS[i % 2]} {'heart' if i % 4 < 2 else 'person'}" for i in range(12)],
        "empty prompt": [""] * 12,
    }
    return to_png(grid([(name, draw(prompts, 1)) for name, prompts in rows.items()], edge=64))


def loaded(weights: Path, architecture: str) -> Draw:
    """How the pipeline in a folder made by `pocket train` draws. `architecture`: sd or sd3."""
    options: Any = {"dtype": torch.float32, "low_cpu_mem_usage": False}
    if architecture == "sd3":
        return mmdit.drawer(
            StableDiffusion3Pipeline.from_pretrained(weights / "sd3", **mmdit.WITHOUT_T5, **options), SETTINGS
        )
    pipeline = StableDiffusionPipeline.from_pretrained(weights / "pipeline", safety_checker=None, **options)
    return with_base(models.of_pipeline(pipeline, name="pocket"))


def run(count: int, sheet: Path | None, weights: Path | None, as_json: bool, architecture: str = "sd") -> int:
    """Print what was measured; returns the exit code."""
    draw = loaded(weights or WEIGHTS, architecture)
    trained = weights / "classifier.safetensors" if weights and architecture == "sd" else None  # sd3 trains none
    scorer = PocketScorer(classifier=trained or CLASSIFIER)
    found = measure(draw, scorer, count)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:26} {value:6.1%}" + (f"  (bar {BARS[name]:.0%})" if name in BARS else ""))
    if sheet:
        sheet.write_bytes(sample_sheet(draw))
    return int(any(found[name] < bar for name, bar in BARS.items()))
