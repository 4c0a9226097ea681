"""Finished tasks of run directories, or an earlier fusion and changes to it, become one fusion."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from advanchor import models
from advanchor.artifacts import Buffer, views
from advanchor.batch.retain import Retain, conflicts, default_retain
from advanchor.fusion.artifact import Fusion, Totals, is_fused, read_fused
from advanchor.fusion.choice import Choice, choose
from advanchor.fusion.member import FusionError, Member, Workshop
from advanchor.fusion.retained import Retained
from advanchor.fusion.sources import Finished, member_of, read_ahead, results_of
from advanchor.fusion.statistics import accumulate
from advanchor.fusion.ways import AUTO, WAYS, FusionSettings
from advanchor.models.base import Base

Progress = Callable[[int, int, str], None]  # done, of how many, concept


def chosen(names: Sequence[str], only: Sequence[str], without: Sequence[str]) -> list[str]:
    """The names that --only and --without leave. Raises FusionError for one that is not there."""
    for option, given in (("--only", only), ("--without", without)):
        for name in given:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise FusionError(f"{option} {name!r}: not one of the {len(names)} finished concepts{hint}")
    left = [name for name in names if (not only or name in only) and name not in without]
    if not left:
        raise FusionError("no concept is left to fuse")
    return left


def contribution(base: Base, member: Member, data: Buffer, settings: FusionSettings) -> Mapping[str, Tensor]:
    """What a member adds to the totals of its way."""
    return WAYS[settings.way_of(member)].contribution(base, member, views(data, member.path), settings)


@dataclass
class FusionPlan:
    """What a fusion is made of, before any of its files is read."""

    settings: FusionSettings  # with a way for every kind
    retain: Retain
    base: str
    members: dict[str, Member]  # all that will be in it, by the concept's name
    leaving: list[Member]  # of an earlier fusion
    coming: list[Member]
    totals: Totals  # of the earlier fusion; empty without one
    choices: list[Choice] = field(default_factory=list)  # what `method: auto` came to


def plan_fusion(
    sources: Sequence[str],
    changes: Mapping[str, Any] | None = None,
    retain: Retain | None = None,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    accepted: bool = False,
    load: Callable[[str], Base] = models.load,
) -> FusionPlan:
    """Run directories and at most one earlier fusion (a folder with fused.json) -> what to add and to subtract.

    changes: settings that differ from the earlier fusion's, or from the defaults. An earlier fusion brings its totals,
    so that only concepts that come, go, or are replaced by a run of the list are read.
    accepted: of runs, only what a person has accepted.
    load: makes the base of a name, where the choice of a way depends on what it is.
    Raises FusionError, ArtifactError, and pydantic's ValidationError for `changes`.
    """
    earlier = [Path(source) for source in sources if is_fused(source)]
    if len(earlier) > 1:
        raise FusionError(f"only one fused model can be changed at a time, not {' and '.join(map(str, earlier))}")
    content, totals = read_fused(earlier[0]) if earlier else ({"settings": {}, "concepts": []}, {})
    present = {entry["concept"]["name"]: Member(**entry) for entry in content["concepts"]}
    found: dict[str, Finished] = {}
    for source in sources:
        if not is_fused(source):
            found |= results_of(source, accepted=accepted)
    names = chosen(list(present | found), only, without)
    base, digest = one_base({name: found[name].result if name in found else vars(present[name]) for name in names})
    settings = changed_settings(content["settings"], changes or {}, present.values(), earlier)
    choices = choose([found[name] for name in names if name in found], settings, lambda: load(base))
    settings = settings.model_copy(
        update={"method_by_kind": settings.method_by_kind | {choice.kind: choice.way for choice in choices}}
    )
    wanted = {name: member_of(found[name], settings) if name in found else present[name] for name in names}
    unchanged = {name for name, member in present.items() if name in wanted and wanted[name].sha256 == member.sha256}
    wanted |= {name: present[name] for name in names if name in unchanged}  # they know their scale
    if retain is None:
        retain = Retain(**content["retain"]) if earlier else default_retain(digest)
    if clashes := conflicts(retain, [member.concept for member in wanted.values()]):
        raise FusionError("\n".join(f"retained prompt {p!r} names {name!r}, which is erased" for p, name in clashes))
    leaving = [member for name, member in present.items() if name not in unchanged]
    coming = [member for name, member in wanted.items() if name not in unchanged]
    return FusionPlan(settings, retain, base, wanted, leaving, coming, totals, choices)


def changed_settings(
    before: Mapping[str, Any], changes: Mapping[str, Any], present: Iterable[Member], earlier: Sequence[Path]
) -> FusionSettings:
    """An earlier fusion's settings (none: the defaults) with changes.

    Raises FusionError for a way that is not the one by which the concepts that are present were fused.
    """
    settings = FusionSettings(**{**before, **changes})
    if before and settings.method != before["method"]:
        raise FusionError(f"{earlier[0]} was fused by method {before['method']}, not by {settings.method}")
    if before and settings.method == AUTO:
        ways = {**before["method_by_kind"], **settings.method_by_kind}
        settings = settings.model_copy(update={"method_by_kind": ways})
    for kind in dict.fromkeys(member.concept.kind for member in present):
        was, now = FusionSettings(**before).way_for(kind), settings.way_for(kind)
        if was != now:
            raise FusionError(f"{earlier[0]} was fused by {was} ({kind}), not by {now}")
    return settings


def fuse(
    plan: FusionPlan,
    base: Base,
    progress: Progress = lambda done, total, name: None,
    workshop: Workshop | None = None,
) -> Fusion:
    """Read what the plan says, one file at a time, and solve. Memory does not grow with the number of concepts.

    The plan's totals are changed in place. Raises FusionError and ArtifactError.
    """
    check_base(base, plan.members)
    changes = [*plan.leaving, *plan.coming]
    for i, (member, data) in enumerate(read_ahead(changes)):
        sign = -1.0 if i < len(plan.leaving) else 1.0
        way = plan.settings.way_of(member)
        weight = sign * WAYS[way].weight(member)
        accumulate(plan.totals.setdefault(way, {}), contribution(base, member, data, plan.settings), weight)
        progress(i + 1, len(changes), member.concept.name)
    return solved(base, plan.settings, plan.retain, plan.members, plan.totals, workshop)


def one_base(results: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """The name and the digest of the base of all these erasures. Raises FusionError if there are several."""
    names = sorted({result["base"] for result in results.values()})
    if len(names) > 1:
        raise FusionError(f"the concepts were erased from different bases: {', '.join(names)}")
    return names[0], next(iter(results.values()))["base_digest"]


def check_base(base: Base, members: Mapping[str, Member]) -> None:
    for name, member in members.items():
        if member.base_digest != base.digest:
            raise FusionError(
                f"{name!r} was erased from a base with digest {member.base_digest[:12]}, "
                f"but {base.name!r} now has {base.digest[:12]}"
            )


def solved(
    base: Base,
    settings: FusionSettings,
    retain: Retain,
    members: dict[str, Member],
    totals: Totals,
    workshop: Workshop | None = None,
) -> Fusion:
    """The fusion that the totals amount to: every way's part over its own concepts; deltas of several add up."""
    concepts = [member.concept for member in members.values()]
    by_way: dict[str, dict[str, Member]] = {}
    for name, member in members.items():
        by_way.setdefault(settings.way_of(member), {})[name] = member
    totals = {way: totals[way] for way in by_way}  # what has no concept left goes
    retained = Retained(base, retain, concepts, settings)
    facts = {"num_concepts": len(concepts)}
    fusion = Fusion(base.name, base.digest, settings, retain, members, totals, facts=facts, made_of=base.made_of)
    for way, own in by_way.items():
        part = WAYS[way].solve(base, totals[way], own, retained, settings, workshop or Workshop())
        fusion.delta = {key: part.delta.get(key, 0) + fusion.delta.get(key, 0) for key in part.delta | fusion.delta}
        fusion.neurons |= part.neurons
        fusion.base_tensors |= part.base_tensors
        fusion.facts |= part.facts
    return fusion
