"""Repairs of a fusion as a run of their own: on gangs, side by side."""

from pathlib import Path

from torch import Tensor

from advanchor.artifacts import delta_to_bytes, from_bytes, sha256
from advanchor.batch.plan import dump_plan, make_task
from advanchor.batch.spec import BatchSpec
from advanchor.fusion.artifact import Fusion
from advanchor.fusion.member import Member
from advanchor.fusion.repair import REPAIR_WEIGHT, Say, Tune
from advanchor.methods import continue_from
from advanchor.rundir.status import View
from advanchor.rundir.store import Store
from advanchor.runtime.place import Place, drive


def tuner(folder: Path, place: Place, view: View, say: Say) -> Tune:
    """Repairs as a run of their own under `folder`: on gangs, side by side, with all that runs do about failures."""

    def tune(fusion: Fusion, members: list[Member], number: int) -> dict[str, dict[str, Tensor]]:
        start = folder / f"round-{number}.safetensors"
        data = delta_to_bytes(fusion.delta, fusion.base_tensors, {"base_digest": fusion.base_digest})
        start.parent.mkdir(parents=True, exist_ok=True)
        start.write_bytes(data)
        concepts = tuple(member.concept for member in members)
        spec = BatchSpec(model=fusion.base, output=str(folder / f"round-{number}"), concepts=concepts, evaluate=None)
        tasks = []
        for member in members:
            goes_on = {name: member.method[name] for name in ("lr", "trained_weights")}
            goes_on |= {"method": member.method, "round": number}
            starts = {"start": str(start.absolute()), "start_sha256": sha256(data)}
            method = continue_from.Settings.model_validate(goes_on | starts)
            tasks.append(make_task(spec.model_copy(update={"method": method}), member.concept, fusion.base_digest))
        store = Store(spec.output)
        store.keep_plan("", (), dump_plan(spec, tasks))
        status = drive(spec, tasks, store, view, place)
        if status.state == "interrupted":
            raise KeyboardInterrupt
        found = {}
        for task in tasks:
            if store.result(task):
                contributed = from_bytes(store.read_file(task, "statistics"), task.folder)[0]
                found[task.concept.name] = {name: REPAIR_WEIGHT * tensor for name, tensor in contributed.items()}
            else:
                say(f"{task.concept.name!r} could not be tuned again; see {store.url}")
        return found

    return tune
