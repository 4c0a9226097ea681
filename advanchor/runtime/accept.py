"""The acceptance gate and its repairs, in one process: examine a fusion, tune again what fell short, fuse again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from advanchor.artifacts import pack, sha256
from advanchor.delta import Delta
from advanchor.engine import TorchEngine, derived_seed
from advanchor.evaluation import EvaluationSettings, Evaluator
from advanchor.evaluation.exam import Scorer
from advanchor.fusion.artifact import REPAIRS, Fusion, Member
from advanchor.fusion.gate import Bars, examine
from advanchor.fusion.repair import retuned
from advanchor.fusion.statistics import accumulate
from advanchor.methods import MethodSettings
from advanchor.models.base import Base
from advanchor.plan import slug
from advanchor.runtime.fuse import FusionError, contribution, read_member, solved
from advanchor.runtime.worker import scorer_for
from advanchor.training import Context


class Examination(EvaluationSettings):
    """How a fused model is examined: of hundreds of concepts, so with fewer pictures each than a single erasure."""

    num_prompts: int = Field(default=8, ge=1, description="prompts with each concept")
    retained_images_per_prompt: int = Field(default=1, ge=1, description="pictures of each prompt without any of them")
    solver: Literal["ddim", "dpm"] = Field(
        default="dpm", description="dpm (DPM-Solver++ 2M) needs about half the steps"
    )
    steps: int = Field(default=10, ge=1, description="sampling steps")


MAX_ROUNDS = 4
REPAIR_WEIGHT = 2.0  # of a repaired concept in the sums, relative to the others
Say = Callable[[str], None]


@contextmanager
def applied(unet: nn.Module, delta: Mapping[str, Tensor]) -> Iterator[None]:
    """The weights are W0 + dW inside this block, and W0 again, bit for bit, after it."""
    parameters = dict(unet.named_parameters())
    before = {name: parameters[name].detach().clone() for name in delta}
    try:
        with torch.no_grad():
            for name, tensor in delta.items():
                parameters[name].copy_(parameters[name].float() + tensor.to(parameters[name].device))
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                parameters[name].copy_(tensor)


class Gate:
    """Examines fusions of one base; what the base itself makes of the questions is remembered."""

    def __init__(self, base: Base, scorer: Scorer, settings: EvaluationSettings, bars: Bars) -> None:
        self.base, self.bars = base, bars
        self.evaluator = Evaluator(base, scorer, settings)

    def verdict(self, fusion: Fusion) -> dict[str, Any]:
        members = fusion.members.values()
        alone = {name: member.ua for name, member in fusion.members.items()}
        concepts = [member.concept for member in members]
        return examine(self.evaluator, concepts, lambda: applied(self.base.unet, fusion.delta), self.bars, alone)


def make_gate(base: Base, settings: EvaluationSettings, bars: Bars) -> Gate | None:
    """None where nothing can look at the base's pictures."""
    scorer = scorer_for(base)
    return Gate(base, scorer, settings, bars) if scorer else None


def failing(verdict: Mapping[str, Any]) -> list[str]:
    return [row["name"] for row in verdict["concepts"] if row["passed"] is False]


def shortfall(verdict: Mapping[str, Any]) -> tuple[int, float]:
    """How many rows fail, then how much UA is missing in all: less is better."""
    rows = [*verdict["concepts"], *verdict["retained"]]
    missing = sum(
        max(verdict["bars"]["ua"] - (row["ua"] or 0), 0) for row in verdict["concepts"] if row["passed"] is False
    )
    return sum(row["passed"] is False for row in rows), missing


def repair(base: Base, fusion: Fusion, gate: Gate, folder: Path, say: Say) -> tuple[Fusion, dict[str, bytes]]:
    """Tune every failing concept again on top of the fusion and fuse again, until all pass or a round brings nothing.

    fusion: with its verdict. Returns the best fusion, and the files of its repairs by their path in `folder`, where it
    is going to be written. Raises FusionError for a fusion by another method than closed_form.
    """
    if fusion.settings.method != "closed_form":
        raise FusionError(f"--repair changes deltas, which {fusion.settings.method} does not use")
    files: dict[str, bytes] = {}
    for number in range(1, MAX_ROUNDS + 1):
        assert fusion.verdict is not None
        names = failing(fusion.verdict)
        if not names:
            break
        say(f"repair {number}: {len(names)} of {len(fusion.members)} concepts")
        candidate, new_files = repaired(base, fusion, names, number, folder, files)
        candidate.verdict = gate.verdict(candidate)
        if shortfall(candidate.verdict) >= shortfall(fusion.verdict):
            say(f"repair {number} brought nothing; the fusion before it stays")
            break
        fusion, files = candidate, new_files
    used = {member.path for member in fusion.members.values() if member.run == str(folder)}
    return fusion, {path: data for path, data in files.items() if path in used}


def repaired(
    base: Base, fusion: Fusion, names: list[str], number: int, folder: Path, files: Mapping[str, bytes]
) -> tuple[Fusion, dict[str, bytes]]:
    """One round: the fusion with new contributions of `names`, and all repair files so far."""
    members, totals, files = dict(fusion.members), {k: v.clone() for k, v in fusion.totals.items()}, dict(files)
    for name in names:
        old = members[name]
        data = files[old.path] if old.path in files else read_member(old)
        accumulate(totals, contribution(base, old, data, "closed_form"), sign=-1.0)
        new = retuned_concept(base, fusion, old, number)
        accumulate(totals, new)
        packed = pack(
            new, {"base_digest": base.digest, "concept": old.concept.model_dump(mode="json"), "round": number}
        )
        path = f"{REPAIRS}/{slug(name)}-{old.task}-{number}.safetensors"
        files[path] = packed
        changes = {"run": str(folder), "path": path, "sha256": sha256(packed)}
        members[name] = old.model_copy(update=changes)
    result = solved(base, fusion.settings, fusion.retain, members, totals)
    result.facts["repair_rounds"] = number
    return result, files


def retuned_concept(base: Base, fusion: Fusion, member: Member, number: int) -> dict[str, Tensor]:
    settings = TypeAdapter(MethodSettings).validate_python(member.method)
    delta = Delta(base.unet, settings.trained_weights)
    try:
        engine = TorchEngine(base.unet, delta.named_parameters())
        seed = derived_seed("repair", member.task, number)  # other draws than the erasure's own, and every round's
        context = Context(base, engine, delta, [member.concept], [seed])
        return retuned(context, settings, fusion.delta, REPAIR_WEIGHT)
    finally:
        delta.detach()
