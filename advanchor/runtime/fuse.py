"""Finished tasks of run directories, or an earlier fusion and changes to it, become one fusion."""

import difflib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advanchor.artifacts import ArtifactError, Buffer, views
from advanchor.fusion import neurons, solve
from advanchor.fusion.artifact import Fusion, Member, Totals, is_fused, read_fused
from advanchor.fusion.retain import Kept, Retain, conflicts, default_retain, kept
from advanchor.fusion.solve import FusionSettings
from advanchor.fusion.statistics import (
    FUSABLE,
    accumulate,
    anchor_conditioning,
    anchor_statistics,
    statistics,
)
from advanchor.methods.adv_anchor import Settings as AdvAnchorSettings
from advanchor.models.base import Base
from advanchor.plan import slug
from advanchor.retained import encode_all
from advanchor.runtime.store import Store
from advanchor.text import fill

READS = {  # which of a task's files each method reads, the first that is there
    "closed_form": ("statistics", "delta"),
    "anchor_edit": ("anchor",),
    "task_arithmetic": ("delta",),
    "neurons": ("anchor",),
}
READERS = 2  # files read at a time: one alone cannot read and hash as fast as a disk delivers
Progress = Callable[[int, int, str], None]  # done, of how many, concept


class FusionError(ValueError):
    """A fusion that cannot be made from what was named."""


def finished(url: str, settings: FusionSettings) -> dict[str, Member]:
    """The finished concepts of a run by name, in its batch's order; of several batches the latest counts.

    Raises FusionError for one that cannot be fused with these settings.
    """
    store = Store(url)
    results = store.results()
    if not results:
        raise FusionError(f"{url} is neither a run directory with finished tasks nor a fused model")
    status = store.read_json("status.json")
    current = {entry["id"]: i for i, entry in enumerate(status["tasks"])} if status else {}
    members: dict[str, Member] = {}
    for result in sorted(results, key=lambda result: current.get(result["task"], -1)):
        method = settings.method_for(result["concept"]["kind"])
        check_fusable(result, method, url)
        stem = next((stem for stem in READS[method] if stem in result["files"]), None)
        name = result["concept"]["name"]
        if stem is None:
            raise FusionError(f"{url}: {name!r} has no {READS[method][0]} file, which {method} needs")
        entry = result["files"][stem]
        members.pop(name, None)
        members[name] = Member(
            concept=result["concept"],
            task=result["task"],
            method=result["method"],
            base=result["base"],
            base_digest=result["base_digest"],
            run=store.url,
            path=f"tasks/{slug(name)}-{result['task']}/{entry['name']}",
            sha256=entry["sha256"],
            ua=(result.get("scores") or {}).get("ua"),
        )
    return members


def check_fusable(result: Mapping[str, Any], method: str, url: str) -> None:
    """Raises FusionError for an erasure that `method` cannot fuse, naming the setting."""
    name, settings = result["concept"]["name"], result["method"]
    if method == "closed_form" and settings["trained_weights"] != FUSABLE:
        raise FusionError(
            f"{url}: {name!r} was erased with method.trained_weights: {settings['trained_weights']}; "
            f"closed_form fuses only {FUSABLE}"
        )
    if method in ("anchor_edit", "neurons") and settings["name"] != "adv_anchor":
        raise FusionError(
            f"{url}: {name!r} was erased with method.name: {settings['name']}, which leaves no anchor for {method}"
        )


def chosen(members: Mapping[str, Member], only: Sequence[str], without: Sequence[str]) -> dict[str, Member]:
    """The members that --only and --without leave. Raises FusionError for a name that is not there."""
    for option, names in (("--only", only), ("--without", without)):
        for name in names:
            if name not in members:
                close = difflib.get_close_matches(name, list(members), 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise FusionError(f"{option} {name!r}: not one of the {len(members)} finished concepts{hint}")
    left = {k: v for k, v in members.items() if (not only or k in only) and k not in without}
    if not left:
        raise FusionError("no concept is left to fuse")
    return left


def read_member(member: Member, buffer: bytearray | None = None) -> memoryview:
    """The file that a member's contribution is made of, in `buffer` where one is given.

    Raises ArtifactError if it is missing or another one.
    """
    found = Store(member.run).read_into(member.path, bytearray() if buffer is None else buffer)
    if found is None or found[1] != member.sha256:
        state = "missing" if found is None else "damaged (sha256 differs)"
        raise ArtifactError(f"{member.run}/{member.path}, which {member.concept.name!r} was fused from, is {state}")
    return found[0]


def read_ahead(members: Sequence[Member]) -> Iterator[tuple[Member, memoryview]]:
    """Members with their files, each good until the next is asked for.

    The next ones are read and hashed while the caller works on this one.
    """
    buffers = [bytearray() for _ in range(READERS + 1)]
    with ThreadPoolExecutor(READERS) as readers:

        def start(i: int) -> Future[memoryview]:
            return readers.submit(read_member, members[i], buffers[i % len(buffers)])

        coming = deque(start(i) for i in range(min(READERS, len(members))))
        for i, member in enumerate(members):
            data = coming.popleft().result()
            if isinstance(data.obj, bytearray):
                buffers[i % len(buffers)] = data.obj  # a larger one, if the file did not fit
            if i + READERS < len(members):
                coming.append(start(i + READERS))
            yield member, data


def contribution(base: Base, member: Member, data: Buffer, settings: FusionSettings) -> Mapping[str, Tensor]:
    """What a member adds to the totals."""
    tensors, concept = views(data, member.path), member.concept
    method = settings.method_for(concept.kind)
    if method == "task_arithmetic" or "gram" in tensors:
        return tensors
    if method == "closed_form":  # an erasure of before statistics were kept: its delta says the same
        return statistics(tensors, encode_all(base, [fill(t, concept.name) for t in concept.templates]))
    e_c, e_a = anchor_conditioning(base, concept, AdvAnchorSettings(**member.method), tensors["e_adv"])
    if method == "anchor_edit":
        return anchor_statistics(e_c.prompt_embeds, e_a.prompt_embeds)
    goal = e_a.prompt_embeds if settings.towards == "anchor" else neurons.neutral_embeds(base, concept)
    return neurons.neuron_statistics(base, concept, goal, settings.reach)


@dataclass
class FusionPlan:
    """What a fusion is made of, before any of its files is read."""

    settings: FusionSettings
    retain: Retain
    base: str
    members: dict[str, Member]  # all that will be in it, by the concept's name
    leaving: list[Member]  # of an earlier fusion
    coming: list[Member]
    totals: Totals  # of the earlier fusion; empty without one


def plan_fusion(
    sources: Sequence[str],
    changes: Mapping[str, Any] | None = None,
    retain: Retain | None = None,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> FusionPlan:
    """Run directories and at most one earlier fusion (a folder with fused.json) -> what to add and to subtract.

    changes: settings that differ from the earlier fusion's, or from the defaults. An earlier fusion brings its totals,
    so that only concepts that come, go, or are replaced by a run of the list are read.
    Raises FusionError, ArtifactError, and pydantic's ValidationError for `changes`.
    """
    earlier = [Path(source) for source in sources if is_fused(source)]
    if len(earlier) > 1:
        raise FusionError(f"only one fused model can be changed at a time, not {' and '.join(map(str, earlier))}")
    content, totals = read_fused(earlier[0]) if earlier else ({"settings": {}, "concepts": []}, {})
    settings = FusionSettings(**content["settings"] | dict(changes or {}))
    for setting in ("method", "method_by_kind"):
        before, now = (found.get(setting) for found in (content["settings"], settings.model_dump()))
        if earlier and before != now:
            raise FusionError(f"{earlier[0]} was fused by {setting} {before}, not by {now}")
    present = {entry["concept"]["name"]: Member(**entry) for entry in content["concepts"]}
    members = dict(present)
    for source in sources:
        if not is_fused(source):
            members |= finished(source, settings)
    unchanged = {name: m for name, m in present.items() if name in members and members[name].sha256 == m.sha256}
    wanted = chosen(members | unchanged, only, without)  # those of the earlier fusion know their strength
    base = one_base(wanted)
    if retain is None:
        retain = Retain(**content["retain"]) if earlier else default_retain(base)
    if found := conflicts(retain, [member.concept for member in wanted.values()]):
        raise FusionError("\n".join(f"retained prompt {p!r} names {name!r}, which is erased" for p, name in found))
    leaving = [m for name, m in present.items() if name not in wanted or wanted[name].sha256 != m.sha256]
    coming = [m for name, m in wanted.items() if name not in present or present[name].sha256 != m.sha256]
    return FusionPlan(settings, retain, base, wanted, leaving, coming, totals)


def fuse(plan: FusionPlan, base: Base, progress: Progress = lambda done, total, name: None) -> Fusion:
    """Read what the plan says, one file at a time, and solve. Memory does not grow with the number of concepts.

    The plan's totals are changed in place. Raises FusionError and ArtifactError.
    """
    check_base(base, plan.members)
    changes = [*plan.leaving, *plan.coming]
    for i, (member, data) in enumerate(read_ahead(changes)):
        sign = -1.0 if i < len(plan.leaving) else 1.0
        method = plan.settings.method_for(member.concept.kind)
        weight = sign * member.strength if method == "task_arithmetic" else sign
        accumulate(plan.totals.setdefault(method, {}), contribution(base, member, data, plan.settings), weight)
        progress(i + 1, len(changes), member.concept.name)
    return solved(base, plan.settings, plan.retain, plan.members, plan.totals)


def one_base(members: Mapping[str, Member]) -> str:
    names = sorted({member.base for member in members.values()})
    if len(names) > 1:
        raise FusionError(f"the concepts were erased from different bases: {', '.join(names)}")
    return names[0]


def check_base(base: Base, members: Mapping[str, Member]) -> None:
    for name, member in members.items():
        if member.base_digest != base.digest:
            raise FusionError(
                f"{name!r} was erased from a base with digest {member.base_digest[:12]}, "
                f"but {base.name!r} now has {base.digest[:12]}"
            )


def solved(base: Base, settings: FusionSettings, retain: Retain, members: dict[str, Member], totals: Totals) -> Fusion:
    """The fusion that the totals amount to: every method's part over its own concepts; deltas of several add up."""
    concepts = [member.concept for member in members.values()]
    counts = Counter(settings.method_for(concept.kind) for concept in concepts)
    totals = {method: totals[method] for method in counts}  # what has no concept left goes
    facts: dict[str, Any] = {"num_concepts": len(concepts)}
    delta: dict[str, Tensor] = {}
    gates: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for method, count in counts.items():
        if method == "task_arithmetic":
            part, weights = solve.task_arithmetic(totals[method], settings.scale), base_tensors(base, totals[method])
        else:
            keep = kept(base, retain, concepts, settings, count)
            facts["num_retained_prompts"] = len(keep.weights)
            if method == "neurons":
                gram = settings.retain_weight * (count + neurons.PRIOR) * neurons.retained_gram(base, keep.weights)
                strengths = {name: member.strength for name, member in members.items()}
                gates = neurons.solve(base, totals[method], gram, settings.ridge, settings.threshold, strengths)
                tensors |= neurons.mlp_tensors(base.text_encoder)
                continue
            part, weights = edited(base, method, totals[method], keep, settings.ridge)
            facts["retained_change"] = relative_change(part, weights, keep.retained)
        delta = {name: part.get(name, 0) + delta.get(name, 0) for name in part | delta}  # type: ignore[misc]
        tensors |= weights
    return Fusion(base.name, base.digest, settings, retain, members, totals, delta, gates, tensors, facts)


def edited(
    base: Base, method: str, totals: Mapping[str, Tensor], keep: Kept, ridge: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """dW of keys and values by a closed form, and W0."""
    if method == "anchor_edit":
        tensors = base_tensors(base, None)
        return solve.anchor_edit(totals, keep.retained, keep.exactly, ridge, tensors), tensors
    return solve.closed_form(totals, keep.retained, keep.exactly, ridge), base_tensors(base, totals)


def base_tensors(base: Base, named: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """W0 of the weights that totals are about; of all that anchor_edit changes (None): attn2's to_k and to_v."""
    endings = (".attn2.to_k.weight", ".attn2.to_v.weight")
    parameters = dict(base.unet.named_parameters())
    return {
        name: tensor.detach().cpu()
        for name, tensor in parameters.items()
        if (name in named if named is not None else name.endswith(endings))
    }


def relative_change(delta: Mapping[str, Tensor], base: Mapping[str, Tensor], retained: Tensor) -> float:
    """|dW E_p| / |W0 E_p| over all projections: how much the retained prompts' keys and values move."""

    def energy(weights: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([((w.double().cpu() @ retained) * w.double().cpu()).sum() for w in weights.values()]).sum()

    return float((energy(delta) / energy(base)).clamp_min(0).sqrt())
