"""advanchor plan: what a batch would do."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from advanchor.cli import common
from advanchor.cli.console import cell, console, safe, say, warn

if TYPE_CHECKING:
    from advanchor.batch.memory import Memory
    from advanchor.batch.plan import Task
    from advanchor.batch.spec import BatchSpec
    from advanchor.concepts import Concept
    from advanchor.models.profile import Profile


def plan(
    batch: common.BatchFile,
    overrides: common.Overrides = None,
    output: common.Output = None,
    as_json: common.AsJson = False,
) -> None:
    """Show the tasks of a batch and an estimate of their cost. Nothing is erased and nothing is written."""
    read, tasks = common.planned(batch, overrides, output)
    from advanchor.batch.disk import sentence
    from advanchor.batch.estimate import estimate
    from advanchor.models.profile import GENERAL, profile_of
    from advanchor.rundir.store import Store

    spec, profile = read.spec, profile_of(tasks[0].base_digest)
    unprompted = list(dict.fromkeys(concept.kind for concept in read.concepts if not concept.templates))
    with common.user_errors():
        store = Store(spec.output)
        done = {task.id for task in tasks if store.result(task)}
    warn(store.damaged)
    memory, disk, unknown = sizes_of(spec, read.concepts)
    cost = estimate(spec, [task for task in tasks if task.id not in done])
    if as_json:
        listed = [{"id": t.id, "name": t.concept.name, "kind": t.concept.kind, "done": t.id in done} for t in tasks]
        told = {"output": store.url, "tasks": listed, "estimate": cost.to_json()}
        told["memory"] = memory.to_json() | {"gpus": spec.resources.ranks} if memory else None
        told["disk"] = disk
        told["profile"] = profile.to_json() | {"prompts": {kind: asdict(profile.prompts[kind]) for kind in unprompted}}
        print(json.dumps(told, indent=2))
        return
    console().print(table(tasks, done))
    say(f"{len(tasks)} tasks, {len(done)} of them done, into {safe(store.url)}")
    if profile is GENERAL:
        say(safe(general_prompts(profile, unprompted)))
    say(cost.sentence())
    for line in cost.warnings():
        say(safe(line), "yellow")
    if memory is None or disk is None:
        say(safe(unknown))
        return
    say(sentence(disk, len(tasks)))
    ranks = spec.resources.ranks
    say(safe(f"a gang of {ranks} GPU{'s' if ranks > 1 else ''} needs {memory.sentence()}"))


def table(tasks: "Sequence[Task]", done: Collection[str]) -> Table:
    """A row per task; `done`: the ids of those that have a result."""
    view = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("concept", "kind", "method", "templates", "task", "state"):
        view.add_column(column)
    for task in tasks:
        cells = (task.concept.name[:40], task.concept.kind, task.method.name, str(len(task.concept.templates)), task.id)
        view.add_row(*map(cell, cells), cell("done" if task.id in done else "to do"))
    return view


def sizes_of(spec: "BatchSpec", concepts: "Sequence[Concept]") -> "tuple[Memory | None, int | None, str]":
    """What a task needs of its GPUs, and all of them of the disk, in bytes; or why that cannot be counted."""
    from advanchor.batch.disk import stored
    from advanchor.batch.memory import needed
    from advanchor.models import ModelError

    try:
        return needed(spec, concepts), stored(spec, concepts), ""
    except ModelError as error:
        return None, None, f"what a task needs cannot be counted: {error}"


def general_prompts(profile: "Profile", kinds: Sequence[str]) -> str:
    """What a base without a profile of its own is erased with."""
    used = "; ".join(f"{kind}: {', '.join(map(repr, profile.prompts[kind].templates))}" for kind in kinds)
    prompts = f"concepts without prompts get general ones ({used})" if used else "every concept has prompts of its own"
    return f"this base has no profile: {prompts}; retained prompts are sampled from {profile.vocabulary!r}"
