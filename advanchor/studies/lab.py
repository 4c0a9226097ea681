"""What studies share: erasures run through the product, many settings in one run directory, and rows for a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from advanchor import models
from advanchor.artifacts import from_bytes
from advanchor.batch.plan import ID_LENGTH, Task, content_hash, dump_plan, make_task
from advanchor.batch.spec import BatchSpec, Resources
from advanchor.concepts import Concept
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods import MethodSettings
from advanchor.models.base import Base
from advanchor.models.digests import folder_digest
from advanchor.models.encoding import meanings
from advanchor.models.text import fill
from advanchor.pocket.world import OBJECTS, STYLES, people
from advanchor.rundir.status import View
from advanchor.rundir.store import Store
from advanchor.runtime.place import Place, drive
from advanchor.training.context import TrainingSettings

MODEL = "pocket"
FEW = 3  # erasures of a quick study, unless it has more methods
PACK = 8  # tasks of equal settings that share a forward, at most: on CPU cores more bring nothing


@dataclass(frozen=True)
class Size:
    """How much of a study is run."""

    per_kind: int = 8  # concepts of each kind, at most
    seeds: int = 3  # erasures of each concept by each method
    quick: bool = False  # few erasures, next to no steps and pictures: does everything run?


@dataclass(frozen=True)
class Trial:
    """One erasure of a study."""

    label: str  # of the row that it belongs to
    concept: Concept
    method: MethodSettings
    seed: int


@dataclass(frozen=True)
class Found:
    """A trial and what came of it."""

    trial: Trial
    result: dict[str, Any]
    read_delta: Callable[[], bytes]

    @property
    def scores(self) -> dict[str, Any]:
        return self.result["scores"]

    def delta(self) -> dict[str, Tensor]:
        """dW by the name of the base's tensor."""
        return from_bytes(self.read_delta(), self.trial.concept.name)[0]


Row = dict[str, Any]
Format = Callable[[Any], str]


@dataclass(frozen=True)
class Study:
    """Which erasures, what is asked about them, and what the table and the plot show."""

    title: str
    trials: Callable[[Base, Size], Sequence[Trial]]
    evaluation: EvaluationSettings
    rows: Callable[[Base, Sequence[Found], Size], list[Row]]
    columns: Mapping[str, tuple[str, Format]]  # key of a row -> title and how to write it
    plot: Callable[[Sequence[Row], Any], None]  # on a matplotlib figure
    folder: str  # of the runs: studies that share it share their erasures
    explained: str = ""  # what the columns mean
    summary: Callable[[Sequence[Row]], list[Row]] = list  # what the page tells of `rows`, which NAME.json has
    further: Callable[[Base, Size, Sequence[Row]], Sequence[Trial]] = lambda base, size, rows: ()  # asked until empty


def concepts(base: Base, kind: Any, names: Sequence[str]) -> list[Concept]:
    """Of the gallery, with the prompts of their kind, and with the concept that is most similar to each."""
    prompts = models.default_prompts(MODEL)
    listed = [Concept(name=name, kind=kind).with_prompts(prompts) for name in names]
    return [concept.model_copy(update={"similar": most_similar(base, concept)}) for concept in listed]


def most_similar(base: Base, concept: Concept) -> str:
    """The concept of the same kind whose prompts mean most alike to the text encoder; empty for the mark."""
    others = of_same_kind(concept)
    if not others:
        return ""
    template = concept.templates[0]
    own, *rest = meanings(base, [fill(template, name) for name in (concept.name, *others)])
    return max(zip(others, rest, strict=True), key=lambda pair: float(pair[1] @ own))[0]


def of_same_kind(concept: Concept) -> list[str]:
    """The gallery's other concepts of its kind; none for the mark."""
    groups = {"style": STYLES, "object": OBJECTS, "identity": tuple(person.name for person in people())}
    return [name for name in groups.get(concept.kind, ()) if name != concept.name]


def crossed(
    listed: Sequence[Concept], rows: Callable[[Concept], Mapping[str, MethodSettings]], size: Size
) -> list[Trial]:
    """Every concept with every row of settings and every seed; what draws nothing is done once."""
    return [
        Trial(label, concept, shortened(settings) if size.quick else settings, seed)
        for concept in listed
        for label, settings in rows(concept).items()
        for seed in range(size.seeds if isinstance(settings, TrainingSettings) else 1)
    ]


def few(trials: Sequence[Trial]) -> list[Trial]:
    """The first trial of each method, and the next ones where these are fewer than FEW."""
    firsts = {id(trial) for trial in {type(trial.method): trial for trial in reversed(trials)}.values()}
    for trial in trials:
        if len(firsts) < FEW:
            firsts.add(id(trial))
    return [trial for trial in trials if id(trial) in firsts]


def shortened(settings: MethodSettings) -> MethodSettings:
    """The same method in next to no time."""
    fast = {
        "steps": 2,
        "anchor_steps": 1,
        "num_latents": 2,
        "latent_steps": 2,
        "partial_steps": 2,
        "retain_prompts": 10,
        "rounds": 1,
        "round_steps": 1,
        "attack_steps": 1,
    }
    return settings.model_copy(update={k: v for k, v in fast.items() if k in type(settings).model_fields})


def asked(study: Study, size: Size) -> EvaluationSettings:
    """The study's evaluation, or the same in next to no time."""
    if not size.quick:
        return study.evaluation
    few = {
        "num_prompts": 2,
        "num_retained": 4,
        "attack_steps": 2,
        "images_per_prompt": 1,
        "retained_images_per_prompt": 1,
        "steps": 2,
    }
    return study.evaluation.model_copy(update={**few, "scales": study.evaluation.scales[-1:]})


def planned(folder: Path, trials: Sequence[Trial], evaluate: EvaluationSettings) -> tuple[BatchSpec, list[Task]]:
    """A batch whose tasks have settings and seeds of their own; equal trials are one task."""
    listed = [trial.concept for trial in trials]
    resources = Resources(concepts_per_pack=PACK)
    common = BatchSpec(model=MODEL, output=str(folder), concepts=tuple(listed), evaluate=evaluate, resources=resources)
    digest = folder_digest(models.resolve(MODEL))
    tasks = [
        with_shared_draws(
            make_task(common.model_copy(update={"method": trial.method, "seed": trial.seed}), trial.concept, digest)
        )
        for trial in trials
    ]
    return common, tasks


def with_shared_draws(task: Task) -> Task:
    """The task with random numbers of its concept and seed, whatever its method: latents are drawn once for all."""
    draws = content_hash({"concept": task.concept.model_dump(mode="json"), "base": task.base_digest})[:ID_LENGTH]
    return task.model_copy(update={"id": content_hash({"id": task.id, "draws": draws})[:ID_LENGTH], "draws": draws})


def run(folder: Path, trials: Sequence[Trial], evaluate: EvaluationSettings, view: View, *, local: bool) -> list[Found]:
    """All trials; what the folder has already is not done again. RuntimeError if some could not be done."""
    spec, tasks = planned(folder, trials, evaluate)
    unique = list({task.id: task for task in tasks}.values())
    store = Store(spec.output)
    store.keep_plan("", (), dump_plan(spec, unique))
    for trained in sorted({task.method.trained_weights for task in unique}):  # a run trains one set of weights
        own = [task for task in unique if task.method.trained_weights == trained]
        if drive(spec, own, store, view, Place(local)).state == "interrupted":
            raise KeyboardInterrupt
    results = [store.result(task) for task in tasks]
    if missing := [task.concept.name for task, result in zip(tasks, results, strict=True) if result is None]:
        raise RuntimeError(f"{len(missing)} trials have no result, for example of {missing[0]!r}; see {store.url}")
    return [
        Found(trial, result, lambda task=task: store.read_file(task, "delta"))
        for trial, task, result in zip(trials, tasks, results, strict=True)
        if result
    ]


def effort(found: Sequence[Found]) -> tuple[int, float]:
    """How many erasures the trials are, and the seconds that ranks spent on erasing and evaluating them."""
    results = {(one.result["task"], one.result["scores_key"]): one.result for one in found}.values()
    return len(results), sum(sum(result["seconds"].values()) for result in results)


def spent(erasures: int, seconds: float) -> str:
    return f"{erasures} erasures: {seconds / 60:.0f} minutes of ranks, evaluation included."


# --- how tables are written


def text(value: Any) -> str:
    return "–" if value is None else str(value)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def thousandths(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.1f}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def around(write: Format) -> Format:
    """For (value, low, high): the value and its 95 % interval, where there is one."""

    def written(value: Any) -> str:
        if value is None or value[0] is None:
            return "–"
        middle, low, high = value
        if low is None:
            return write(middle)
        return (
            f"{write(middle)} ({write(low)} or more)"
            if high is None
            else f"{write(middle)} ({write(low)} to {write(high)})"
        )

    return written


def markdown(rows: Sequence[Row], columns: Mapping[str, tuple[str, Format]]) -> str:
    """A table; columns that no row has anything in are left out."""
    shown = {key: column for key, column in columns.items() if any(row.get(key) is not None for row in rows)}
    lines = ["| " + " | ".join(title for title, _ in shown.values()) + " |", "|" + "---|" * len(shown)]
    lines += ["| " + " | ".join(write(row.get(key)) for key, (_, write) in shown.items()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def tables(rows: Sequence[Row], columns: Mapping[str, tuple[str, Format]]) -> str:
    """A table for each kind of rows: those with the same keys."""
    groups: dict[frozenset[str], list[Row]] = {}
    for row in rows:
        groups.setdefault(frozenset(row), []).append(row)
    return "\n".join(markdown(own, columns) for own in groups.values())
