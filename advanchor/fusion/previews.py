"""Pictures of a fusion: what its runs have kept of the base and of single erasures, and the fused model's beside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from advanchor.artifacts import sha256
from advanchor.batch.plan import scores_key
from advanchor.evaluation.evaluator import PREVIEW, previewed
from advanchor.evaluation.exam import UnknownConceptError
from advanchor.evaluation.generate import generate, numbered_seeds
from advanchor.evaluation.grids import decoded, grid, pictures_of, pixels_of, to_png
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.fusion.artifact import PICTURES, Fusion
from advanchor.fusion.gate import Gate
from advanchor.fusion.member import Member
from advanchor.rundir.records import folder_of
from advanchor.rundir.store import Store

EVERY = 2  # of the pictures that a run keeps of a concept
ROWS = ("base", "erased", "fused")  # of a sheet


@dataclass(frozen=True)
class Kept:
    """Pictures of one concept that its run has kept, and what they were made from."""

    member: Member
    page: Image.Image  # the base's above those of the erased model
    prompts: list[str]
    seeds: list[int]


def sheets(gate: Gate, fusion: Fusion) -> dict[str, bytes]:
    """By path in the fused folder, a PNG of every concept whose run has kept pictures: rows of ROWS.

    Prompts and noise are those of the run's own pictures. The paths stand in the fusion's facts, by concept.
    """
    found: dict[str, bytes] = {}
    for run in dict.fromkeys(member.run for member in fusion.members.values()):
        store = Store(run)
        evaluate = evaluation_of(store)
        if evaluate is None or evaluate.scorer != gate.evaluator.settings.scorer:
            continue  # its pictures answer other questions
        members = [member for member in fusion.members.values() if member.run == run]
        kept = kept_pictures(gate, store, evaluate, members)
        if not kept:
            continue
        prompts = [prompt for one in kept for prompt in one.prompts]
        with fusion.on(gate.base):
            drawn = generate(gate.base, prompts, [seed for one in kept for seed in one.seeds], evaluate)
        for number, one in enumerate(kept):
            count = len(one.prompts)
            path = f"{PICTURES}/{folder_of(vars(one.member) | {'concept': vars(one.member.concept)})}.png"
            found[path] = sheet(one.page, drawn[number * count : (number + 1) * count])
            fusion.facts.setdefault("pictures", {})[one.member.concept.name] = path
    return found


def evaluation_of(store: Store) -> EvaluationSettings | None:
    """How the run of a directory was evaluated last; None where it was not, or that cannot be told."""
    plan = store.read_json("plan.json")
    try:
        told = plan["spec"]["evaluate"] if plan else None
        return EvaluationSettings.model_validate(told) if told else None
    except (KeyError, TypeError, ValidationError):
        return None


def kept_pictures(gate: Gate, store: Store, evaluate: EvaluationSettings, members: Sequence[Member]) -> list[Kept]:
    results = {result["task"]: result for result in store.results()}
    key = scores_key(gate.base.digest, evaluate)
    found = []
    for member in members:
        result = results.get(member.task)
        page = page_of(store, result) if result and result["scores_key"] == key else None
        asked = pictured(gate, evaluate, member) if page else None
        if page and asked:
            found.append(Kept(member, page, *asked))
    return found


def page_of(store: Store, result: Mapping[str, Any]) -> Image.Image | None:
    """What a task drew for prompts with its concept; None if it is not the file that the result names."""
    entry = result["files"].get("erased")
    data = store.read(f"tasks/{folder_of(result)}/{entry['name']}") if entry else None
    return decoded(data) if data and entry and sha256(data) == entry["sha256"] else None


def pictured(gate: Gate, evaluate: EvaluationSettings, member: Member) -> tuple[list[str], list[int]] | None:
    """Prompts and seeds of the pictures that are shown of a concept; None for one that the scorer does not know."""
    try:
        exam = gate.evaluator.scorer.exam(member.concept.name, evaluate.num_prompts)
    except UnknownConceptError:
        return None
    prompts = [question.prompt for question in exam.erased for _ in range(evaluate.images_per_prompt)]
    seeds = numbered_seeds(prompts, evaluate.seed)
    chosen = previewed(len(prompts))[::EVERY].tolist()
    return [prompts[i] for i in chosen], [seeds[i] for i in chosen]


def sheet(page: Image.Image, fused: Tensor) -> bytes:
    """The rows of a run's page, and pictures by the fused model (n, 3, H, W) below them."""
    above = [row[::EVERY] for row in pictures_of(page, len(ROWS) - 1, PREVIEW, size=None)]
    rows = [*(torch.stack([pixels_of(picture) for picture in row]) for row in above), fused]
    return to_png(grid(list(zip(ROWS, rows, strict=True)), edge=above[0][0].width))
