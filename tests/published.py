"""Run directories as workers would have left them, without erasing anything."""

import torch
from records import result_of

from advanchor.batch.plan import Task, content_hash
from advanchor.concepts import Concept, KindName
from advanchor.evaluation.grids import grid, to_png
from advanchor.methods.adv_anchor import Settings
from advanchor.rundir.store import Store

GRID = to_png(grid([("base", torch.rand(8, 3, 8, 8)), ("erased", torch.rand(8, 3, 8, 8))]))
BASE = {"ua": 0.02, "ira": 0.625, "cra": 0.9}
COUNTS = {"erased": 100, "retained": 176}


def scores(ua: float, ira: float = 0.5, cra: float = 0.9, **more: object) -> dict:
    return {"ua": ua, "ira": ira, "cra": cra, "degradation": 0.125, "base": BASE, "num_images": COUNTS} | more


def task(name: str, kind: KindName = "style") -> Task:
    concept = Concept(name=name, kind=kind, templates=("a {} shape",), neutral=("a shape",))
    return Task(
        id=content_hash(name)[:12],
        concept=concept,
        method=Settings(),
        base="pocket",
        base_digest="b" * 64,
        profile="c" * 64,
        draws="d" * 12,
        precision="fp32",
        batch_seed=0,
    )


def publish(store: Store, made: Task, found: dict | None, delta: bytes = b"delta") -> None:
    result = result_of(made, scores=found, seconds={"erasing": 40.0, "evaluating": 10.0})
    pictures = {"erased.png": GRID, "retained.png": GRID} if found else {}
    store.publish(made, {"delta.safetensors": delta} | pictures, result)


def attempt(store: Store, made: Task, start: float, end: float, event: str = "Succeeded", **more: object) -> None:
    record = {"event": event, "started_at": start, "ended_at": end, "gang": 1, "node": "node-3", "then": "done"}
    store.record_attempt(made, record | more)


def entry(made: Task, status: str = "done", reason: str = "", attempts: int = 0) -> dict:
    known = {"id": made.id, "name": made.concept.name, "kind": made.concept.kind}
    return known | {"status": status, "reason": reason, "attempts": attempts}


def write_status(store: Store, *entries: dict) -> None:
    times = {"started_at": 1769853600.0, "updated_at": 1769853660.0}
    told = {"state": "finished", "model": "pocket", "method": "adv_anchor", "tasks": list(entries)}
    store.write_json("status.json", told | times)
    store.write("batch.yaml", b"model: pocket\n")
