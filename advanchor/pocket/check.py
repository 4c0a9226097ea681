"""Is the gallery good enough to measure with? Pictures of every attribute, read by the classifier."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from advanchor.evaluation.exam import Question, hits, share
from advanchor.evaluation.generate import SamplingSettings, generate, numbered_seeds
from advanchor.models import BUILT_IN
from advanchor.models.base import Base
from advanchor.pocket.scorer import CLASSIFIER, PocketScorer, person_question, shape_question
from advanchor.pocket.world import BACKGROUNDS, COLOURS, HINTS, MARK, OBJECTS, STYLES, people
from advanchor.report.grids import grid, to_png

BARS = {"object": 0.97, "style": 0.97, "colour": 0.97, "identity": 0.95, "mark": 0.95}
SETTINGS = SamplingSettings(steps=20, guidance=3.0)


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


def rate(base: Base, scorer: PocketScorer, prompts: Sequence[str]) -> float:
    """Share of pictures that show the mark."""
    answers = scorer.read(generate(base, prompts, numbered_seeds(prompts, 0), SETTINGS))
    return sum(answer["mark"] == "present" for answer in answers) / len(answers)


def measure(base: Base, scorer: PocketScorer, count: int) -> dict[str, float]:
    """Accuracies by attribute over named attributes, and how often the mark comes when hinted at and unasked."""
    asked = questions(count, random.Random(0))
    prompts = [question.prompt for question in asked]
    images = generate(base, prompts, numbered_seeds(prompts, 0), SETTINGS)
    answers = [answer for part in images.split(256) for answer in scorer.read(part)]
    third = count // 3
    found = {}
    for attribute in BARS:
        chosen = slice(2 * third, None) if attribute == "mark" else slice(0, 2 * third)
        found[attribute] = share(hits(asked[chosen], answers[chosen], only=attribute)) or 0.0
    found["with the mark: object"] = share(hits(asked[2 * third :], answers[2 * third :], only="object")) or 0.0
    found["with the mark: identity"] = share(hits(asked[2 * third :], answers[2 * third :], only="identity")) or 0.0
    copies = min(20, max(6, count // 30))
    hinted = [f"a picture of a {hint} {word}" for hint in HINTS for word in ("star", "person", "red heart")] * copies
    found["mark when hinted at"] = rate(base, scorer, hinted)
    found["mark unasked"] = rate(
        base, scorer, [prompt.replace(f"{HINTS[0]} ", "").replace(f"{HINTS[1]} ", "") for prompt in hinted]
    )
    return found


def sample_sheet(base: Base) -> bytes:
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
    return to_png(grid([(name, pictures(base, prompts)) for name, prompts in rows.items()], edge=64))


def pictures(base: Base, prompts: Sequence[str]) -> Tensor:
    return generate(base, prompts, numbered_seeds(prompts, 1), SETTINGS)


def run(count: int, sheet: Path | None, weights: Path | None, as_json: bool) -> int:
    """Print what was measured; returns the exit code."""
    pipeline_folder = weights / "pipeline" if weights else BUILT_IN["pocket"]
    pipeline = StableDiffusionPipeline.from_pretrained(
        pipeline_folder, dtype=torch.float32, low_cpu_mem_usage=False, safety_checker=None
    )
    base = Base(pipeline, name="pocket")
    scorer = PocketScorer(classifier=weights / "classifier.safetensors" if weights else CLASSIFIER)
    found = measure(base, scorer, count)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:26} {value:6.1%}" + (f"  (bar {BARS[name]:.0%})" if name in BARS else ""))
    if sheet:
        sheet.write_bytes(sample_sheet(base))
    return int(any(found[name] < bar for name, bar in BARS.items()))
