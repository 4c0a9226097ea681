"""A fused model from beginning to end: planned, solved, examined, mended, written."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from advanchor import models
from advanchor.batch.retain import Retain
from advanchor.fusion.artifact import Fusion, write_fused
from advanchor.fusion.fuse import fuse, plan_fusion
from advanchor.fusion.gate import Bars, Examination, make_gate
from advanchor.fusion.member import Workshop
from advanchor.fusion.previews import sheets
from advanchor.fusion.repair import Say, Tune, repair
from advanchor.fusion.ways import AUTO, WAYS
from advanchor.models.base import Base


@dataclass(frozen=True)
class Wanted:
    """What is to be fused, and how."""

    sources: Sequence[str]
    changes: Mapping[str, Any] = field(default_factory=dict)  # of FusionSettings
    retain: Retain | None = None
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    accepted: bool = False  # of runs, only what a person has accepted
    examined: bool = True  # where something can look at the pictures
    examination: Examination = field(default_factory=Examination)
    bars: Bars = field(default_factory=Bars)
    pipeline: bool = False  # write a whole pipeline, too


def make(wanted: Wanted, folder: Path, say: Say, tuned: Callable[[], AbstractContextManager[Tune]] | None) -> Fusion:
    """Fuse, and write the fused model's folder.

    tuned: opens what retrains deltas for repairs; None: only `method: auto` strengthens what falls short.
    Raises FusionError, ArtifactError, StoreError, ModelError and TextEncoderError.
    """
    load = cache(models.load)
    plan = plan_fusion(
        wanted.sources,
        wanted.changes,
        wanted.retain,
        only=wanted.only,
        without=wanted.without,
        accepted=wanted.accepted,
        load=load,
    )
    for choice in plan.choices:
        say(str(choice))
    if tuned:
        for member in plan.members.values():
            WAYS[plan.settings.way_of(member)].repair(member)  # which some ways refuse: sooner is better than later
    base, workshop = load(plan.base), Workshop(working(folder), say)
    fusion, more = fuse(plan, base, workshop=workshop), {}
    gate = None
    if wanted.examined or tuned:
        gate = make_gate(base, fusion.members.values(), wanted.examination, wanted.bars)
    if gate:
        fusion.verdict = gate.verdict(fusion)
        if tuned or plan.settings.method == AUTO:  # auto strengthens what falls short unasked
            with tuned() if tuned else nullcontext() as tune:
                fusion, more = repair(fusion, gate, folder.resolve(), tune, say, workshop)
        more |= sheets(gate, fusion)
    fusion.facts["choices"] = {choice.kind: str(choice) for choice in plan.choices}
    write_fused(fusion, folder, pipeline_writer(base, fusion) if wanted.pipeline else None, more)
    return fusion


def working(folder: Path) -> Path:
    """Beside a fused model that is being made: what it goes on from after an interruption, on nodes that all see it."""
    return folder.absolute().with_name(f"{folder.name}.repairs")


def pipeline_writer(base: Base, fusion: Fusion) -> Callable[[Path], None]:
    """Writes the fused model as a diffusers pipeline."""

    def write(folder: Path) -> None:
        with fusion.on(base):
            base.pipeline.save_pretrained(folder, safe_serialization=True)

    return write
