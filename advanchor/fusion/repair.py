"""Repairs after the acceptance gate (gate.py): examine a fusion, mend what fell short, fuse again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from advanchor.artifacts import sha256, to_bytes
from advanchor.batch.plan import slug
from advanchor.fusion.artifact import REPAIRS, Fusion
from advanchor.fusion.fuse import contribution, solved
from advanchor.fusion.gate import Gate, failing, shortfall
from advanchor.fusion.member import FusionError, Member, Workshop
from advanchor.fusion.sources import read_member
from advanchor.fusion.statistics import accumulate
from advanchor.fusion.ways import WAYS
from advanchor.models.base import Base

MAX_ROUNDS = 4
STRONGER = 1.25  # what a round multiplies the scale of a concept by, whose part is not trained again
REPAIR_WEIGHT = 2.0  # of a repaired concept in the sums, relative to the others
Say = Callable[[str], None]


Tune = Callable[[Fusion, list[Member], int], Mapping[str, dict[str, Tensor]]]  # members of a round -> new contributions


def repair(
    fusion: Fusion, gate: Gate, folder: Path, tune: Tune | None, say: Say, workshop: Workshop | None = None
) -> tuple[Fusion, dict[str, bytes]]:
    """Mend every failing concept and fuse again, until all pass or a round brings nothing.

    Its way of fusing says how: its delta is tuned again on top of the fusion, or it is made stronger.
    fusion: with its verdict; tune: what trains deltas again; None: only what needs no training is mended, and the rest
    stays as it is. Returns the best fusion, and the files of its repairs by their path in `folder`, where it is going
    to be written. Raises FusionError for what cannot be repaired, with `tune` only.
    """
    mends = {name: mend_of(fusion, member, trains=tune is not None) for name, member in fusion.members.items()}
    files: dict[str, bytes] = {}
    for number in range(1, MAX_ROUNDS + 1):
        assert fusion.verdict is not None
        names = [name for name in failing(fusion.verdict) if mends[name]]
        if not names:
            break
        say(f"repair {number}: {len(names)} of {len(fusion.members)} concepts")
        weak = [fusion.members[name] for name in names if mends[name] == "retrain"]
        found = tune(fusion, weak, number) if weak and tune else {}
        stronger = strengthened(gate.base, fusion, [name for name in names if mends[name] == "strengthen"])
        candidate, new_files = repaired(gate.base, stronger, found, number, folder, files, workshop)
        candidate.verdict = gate.verdict(candidate)
        if shortfall(candidate.verdict) >= shortfall(fusion.verdict):
            say(f"repair {number} brought nothing; the fusion before it stays")
            break
        fusion, files = candidate, new_files
    used = {member.path for member in fusion.members.values() if member.run == str(folder)}
    return fusion, {path: data for path, data in files.items() if path in used}


def mend_of(fusion: Fusion, member: Member, trains: bool) -> str:
    """How a member is mended; empty if it cannot be without training."""
    try:
        mend = WAYS[fusion.settings.way_of(member)].repair(member)
    except FusionError:
        if trains:
            raise
        return ""
    return mend if trains or mend == "strengthen" else ""


def strengthened(base: Base, fusion: Fusion, names: Sequence[str]) -> Fusion:
    """The fusion, its totals and members copied, with some concepts STRONGER; not solved yet."""
    members = dict(fusion.members)
    totals = {method: {name: total.clone() for name, total in own.items()} for method, own in fusion.totals.items()}
    for name in names:
        old = members[name]
        members[name] = old.model_copy(update={"scale": STRONGER * old.scale})
        way = fusion.settings.way_of(old)
        if added := WAYS[way].weight(members[name]) - WAYS[way].weight(old):
            accumulate(totals[way], contribution(base, old, read_member(old), fusion.settings), added)
    return replace(fusion, members=members, totals=totals)


def repaired(
    base: Base,
    fusion: Fusion,
    found: Mapping[str, dict[str, Tensor]],
    number: int,
    folder: Path,
    files: Mapping[str, bytes],
    workshop: Workshop | None = None,
) -> tuple[Fusion, dict[str, bytes]]:
    """The fusion, changed in place to new contributions where there are some, solved, and all repair files so far."""
    members, totals, files = fusion.members, fusion.totals, dict(files)
    for name, new in found.items():
        old = members[name]
        data = files[old.path] if old.path in files else read_member(old)
        own = totals[fusion.settings.way_of(old)]
        accumulate(own, contribution(base, old, data, fusion.settings), sign=-1.0)
        accumulate(own, new)
        packed = to_bytes(
            new, {"base_digest": base.digest, "concept": old.concept.model_dump(mode="json"), "round": number}
        )
        path = f"{REPAIRS}/{slug(name)}-{old.task}-{number}.safetensors"
        files[path] = packed
        changes = {"run": str(folder), "path": path, "sha256": sha256(packed)}
        members[name] = old.model_copy(update=changes)
    result = solved(base, fusion.settings, fusion.retain, members, totals, workshop)
    result.facts["repair_rounds"] = number
    return result, files
