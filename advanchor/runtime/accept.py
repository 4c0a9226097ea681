"""The acceptance gate and its repairs: examine a fusion, mend what fell short, fuse again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor

from advanchor.artifacts import pack, pack_delta, sha256, unpack
from advanchor.evaluation import AttackName, EvaluationSettings, Evaluator
from advanchor.evaluation.exam import Scorer
from advanchor.fusion.artifact import REPAIRS, Fusion, Member
from advanchor.fusion.gate import Bars, examine
from advanchor.fusion.statistics import accumulate
from advanchor.methods import retune
from advanchor.models.base import Base
from advanchor.plan import dump_plan, make_task, slug
from advanchor.runtime.drive import Place, drive
from advanchor.runtime.fuse import FusionError, contribution, read_member, solved
from advanchor.runtime.status import View
from advanchor.runtime.store import Store
from advanchor.runtime.worker import scorer_for
from advanchor.spec import BatchSpec


class Examination(EvaluationSettings):
    """How a fused model is examined: of hundreds of concepts, so with fewer pictures each than a single erasure."""

    num_prompts: int = Field(default=8, ge=1, description="prompts with each concept")
    retained_images_per_prompt: int = Field(default=1, ge=1, description="pictures of each prompt without any of them")
    solver: Literal["ddim", "dpm"] = Field(
        default="dpm", description="dpm (DPM-Solver++ 2M) needs about half the steps"
    )
    steps: int = Field(default=10, ge=1, description="sampling steps")
    scorer: None = Field(default=None, description="fused models are examined by the base's own scorer only")

    @field_validator("attacks")
    @classmethod
    def check(cls, value: tuple[AttackName, ...]) -> tuple[AttackName, ...]:
        if value:
            raise ValueError("attacks are made on single erasures, by advanchor erase, not on fused models")
        return value


MAX_ROUNDS = 4
STRONGER = 1.25  # what a round multiplies the strength of a concept by, whose part is not trained again
REPAIR_WEIGHT = 2.0  # of a repaired concept in the sums, relative to the others
Say = Callable[[str], None]


class Gate:
    """Examines fusions of one base; what the base itself makes of the questions is remembered."""

    def __init__(self, base: Base, scorer: Scorer, settings: EvaluationSettings, bars: Bars) -> None:
        self.base, self.bars = base, bars
        self.evaluator = Evaluator(base, scorer, settings)

    def verdict(self, fusion: Fusion) -> dict[str, Any]:
        members = fusion.members.values()
        alone = {name: member.ua for name, member in fusion.members.items()}
        concepts = [member.concept for member in members]
        return examine(self.evaluator, concepts, lambda: fusion.on(self.base), self.bars, alone)


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


Tune = Callable[[Fusion, list[Member], int], Mapping[str, dict[str, Tensor]]]  # members of a round -> new contributions


def repair(fusion: Fusion, gate: Gate, folder: Path, tune: Tune, say: Say) -> tuple[Fusion, dict[str, bytes]]:
    """Mend every failing concept and fuse again, until all pass or a round brings nothing.

    closed_form: its delta is tuned again on top of the fusion. task_arithmetic, neurons: it is made stronger.
    fusion: with its verdict. Returns the best fusion, and the files of its repairs by their path in `folder`, where it
    is going to be written. Raises FusionError for what cannot be repaired.
    """
    if "anchor_edit" in fusion.totals:
        raise FusionError("--repair changes single concepts' contributions, which anchor_edit shares among all")
    tunable = {name for name, member in fusion.members.items() if method_of(fusion, member) == "closed_form"}
    if untrained := [name for name, member in fusion.members.items() if name in tunable and "lr" not in member.method]:
        method = fusion.members[untrained[0]].method["name"]
        raise FusionError(f"--repair tunes again, but {untrained[0]!r} was erased by {method}, which trains nothing")
    files: dict[str, bytes] = {}
    for number in range(1, MAX_ROUNDS + 1):
        assert fusion.verdict is not None
        names = failing(fusion.verdict)
        if not names:
            break
        say(f"repair {number}: {len(names)} of {len(fusion.members)} concepts")
        weak = [fusion.members[name] for name in names if name in tunable]
        found = tune(fusion, weak, number) if weak else {}
        stronger = strengthened(gate.base, fusion, [name for name in names if name not in tunable])
        candidate, new_files = repaired(gate.base, stronger, found, number, folder, files)
        candidate.verdict = gate.verdict(candidate)
        if shortfall(candidate.verdict) >= shortfall(fusion.verdict):
            say(f"repair {number} brought nothing; the fusion before it stays")
            break
        fusion, files = candidate, new_files
    used = {member.path for member in fusion.members.values() if member.run == str(folder)}
    return fusion, {path: data for path, data in files.items() if path in used}


def method_of(fusion: Fusion, member: Member) -> str:
    return fusion.settings.method_for(member.concept.kind)


def strengthened(base: Base, fusion: Fusion, names: Sequence[str]) -> Fusion:
    """The fusion, its totals and members copied, with some concepts STRONGER; not solved yet."""
    members = dict(fusion.members)
    totals = {method: {name: total.clone() for name, total in own.items()} for method, own in fusion.totals.items()}
    for name in names:
        old = members[name]
        members[name] = old.model_copy(update={"strength": STRONGER * old.strength})
        if method_of(fusion, old) == "task_arithmetic":
            added = members[name].strength - old.strength
            accumulate(totals["task_arithmetic"], contribution(base, old, read_member(old), fusion.settings), added)
    return replace(fusion, members=members, totals=totals)


def repaired(
    base: Base,
    fusion: Fusion,
    found: Mapping[str, dict[str, Tensor]],
    number: int,
    folder: Path,
    files: Mapping[str, bytes],
) -> tuple[Fusion, dict[str, bytes]]:
    """The fusion, changed in place to new contributions where there are some, solved, and all repair files so far."""
    members, totals, files = fusion.members, fusion.totals, dict(files)
    for name, new in found.items():
        old = members[name]
        data = files[old.path] if old.path in files else read_member(old)
        accumulate(totals["closed_form"], contribution(base, old, data, fusion.settings), sign=-1.0)
        accumulate(totals["closed_form"], new)
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


def tuner(folder: Path, place: Place, view: View, say: Say) -> Tune:
    """Repairs as a run of their own under `folder`: on gangs, side by side, with all that runs do about failures."""

    def tune(fusion: Fusion, members: list[Member], number: int) -> dict[str, dict[str, Tensor]]:
        start = folder / f"round-{number}.safetensors"
        data = pack_delta(fusion.delta, fusion.base_tensors, {"base_digest": fusion.base_digest})
        start.parent.mkdir(parents=True, exist_ok=True)
        start.write_bytes(data)
        concepts = tuple(member.concept for member in members)
        spec = BatchSpec(model=fusion.base, output=str(folder / f"round-{number}"), concepts=concepts, evaluate=None)
        tasks = []
        for member in members:
            method = retune.Settings(
                lr=member.method["lr"],
                method=member.method,
                start=str(start.absolute()),
                start_sha256=sha256(data),
                round=number,
            )
            tasks.append(make_task(spec.model_copy(update={"method": method}), member.concept, fusion.base_digest))
        store = Store(spec.output)
        store.keep_plan("", (), dump_plan(spec, tasks))
        status = drive(spec, tasks, store, view, place)
        if status.state == "interrupted":
            raise KeyboardInterrupt
        found = {}
        for task in tasks:
            if store.result(task):
                contributed = unpack(store.read_file(task, "statistics"), task.folder)[0]
                found[task.concept.name] = {name: REPAIR_WEIGHT * tensor for name, tensor in contributed.items()}
            else:
                say(f"{task.concept.name!r} could not be tuned again; see {store.url}")
        return found

    return tune
