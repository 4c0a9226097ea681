"""What fusions are made from: the finished tasks of run directories, and the files that they left."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from advanchor.artifacts import ArtifactError
from advanchor.batch.plan import slug
from advanchor.concepts import Concept
from advanchor.fusion.member import FusionError, Member
from advanchor.fusion.ways import WAYS, FusionSettings
from advanchor.rundir.status import read_status
from advanchor.rundir.store import Store
from advanchor.rundir.verdicts import Verdict, verdicts

READERS = 2  # files read at a time: one alone cannot read and hash as fast as a disk delivers


@dataclass(frozen=True)
class Finished:
    """A finished task: the URL of its run directory, and its result.json."""

    run: str
    result: Mapping[str, Any]

    @property
    def concept(self) -> Concept:
        return Concept(**self.result["concept"])

    def problem(self, way: str) -> str:
        """Why a way of fusing cannot take it; empty if it can."""
        if problem := WAYS[way].problem(self.result["method"]):
            return problem
        return "" if self.file(way) is not None else f"has no {WAYS[way].NEEDS[0]} file, which {way} needs"

    def file(self, way: str) -> Mapping[str, Any] | None:
        """The first file that a way needs and that is there: its name and sha256."""
        files = self.result["files"]
        return next((files[stem] for stem in WAYS[way].NEEDS if stem in files), None)


def results_of(url: str, *, accepted: bool = False) -> dict[str, Finished]:
    """The finished concepts of a run by name, in its batch's order; of several batches the latest counts.

    accepted: only those that a person has accepted. Raises FusionError if there are none.
    """
    store = Store(url)
    results = store.results()
    if not results:
        raise FusionError(f"{url} is neither a run directory with finished tasks nor a fused model")
    status = read_status(store)
    current = {entry.id: i for i, entry in enumerate(status.tasks)} if status else {}
    found: dict[str, Finished] = {}
    for result in sorted(results, key=lambda result: current.get(result["task"], -1)):
        name = result["concept"]["name"]
        found.pop(name, None)
        found[name] = Finished(store.url, result)
    if not accepted:
        return found
    judged = verdicts(store, results)
    good = {name: one for name, one in found.items() if is_accepted(judged.get(one.result["task"]))}
    if not good:
        raise FusionError(f"--accepted: nobody has accepted a concept of {url} yet; `advanchor review` lets you")
    return good


def is_accepted(given: Verdict | None) -> bool:
    return given is not None and given.verdict == "accept"


def finished(url: str, settings: FusionSettings) -> dict[str, Member]:
    """The finished concepts of a run as members. Raises FusionError for one that these settings cannot fuse."""
    return {name: member_of(found, settings) for name, found in results_of(url).items()}


def member_of(found: Finished, settings: FusionSettings) -> Member:
    """Raises FusionError for an erasure that its way cannot fuse, naming the setting."""
    result, concept = found.result, found.concept
    way = settings.way_for(concept.kind)
    entry = found.file(way)
    if (problem := found.problem(way)) or entry is None:
        raise FusionError(f"{found.run}: {concept.name!r} {problem}")
    return Member(
        concept=concept,
        task=result["task"],
        method=result["method"],
        base=result["base"],
        base_digest=result["base_digest"],
        run=found.run,
        path=f"tasks/{slug(concept.name)}-{result['task']}/{entry['name']}",
        sha256=entry["sha256"],
        ua=(result.get("scores") or {}).get("ua"),
    )


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
