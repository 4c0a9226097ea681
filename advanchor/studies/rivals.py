"""Every method on every kind of concept, read at the same UA: what does it cost the rest of the model?"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from advanchor.concepts import Concept
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods import MethodSettings, adv_anchor, age, esd, fixed_anchor, guarded_anchor, speed, uce
from advanchor.models.base import Base
from advanchor.models.profile import sampled_prompts
from advanchor.pocket.wide import HIDDEN
from advanchor.pocket.world import people
from advanchor.studies import evidence
from advanchor.studies.lab import Found, Row, Size, Study, Trial, concepts, of_same_kind, shortened
from advanchor.training.context import TrainingSettings

FOLDER, FAIR_FOLDER = "comparison", "evidence"
TARGET_UA = 0.97
SCALES = (0.6, 1.4, 2.0)
PICTURES: dict[str, Any] = {
    "num_prompts": 24, "images_per_prompt": 1, "num_retained": 20, "retained_images_per_prompt": 2,
    "solver": "dpm", "steps": 6,
}  # fmt: skip
EVALUATION = EvaluationSettings(**PICTURES, scales=SCALES)
WIDE_EVALUATION = EvaluationSettings(
    exam="wide", num_prompts=20, images_per_prompt=1, num_retained=32, retained_images_per_prompt=1, solver="dpm",
    steps=6, scales=(0.2, 0.4, 0.7, 1.4, 2.0),
)  # fmt: skip
TEST_CONCEPTS: dict[str, tuple[str, ...]] = {  # none of them was used to choose settings
    "style": ("dotted", "gradient", "outlined", "checkered", "solid"),
    "object": ("heart", "triangle", "ring", "square", "ellipse", "crescent", "cross", "flower"),
    "identity": tuple(person.name for person in people()[3:200:25]),
    "explicit": ("sigil",),
}
SUPERCLASS, SIMILAR, PAPER, LATER = (
    "fixed_anchor, superclass", "fixed_anchor, similar", "adv_anchor, as in the paper", "adv_anchor, later tokens too",
)  # fmt: skip
OURS, NO_SEARCH = "guarded_anchor", "guarded_anchor, e_adv = 0"
VALIDATION: dict[str, tuple[str, ...]] = {  # settings are chosen on these; there is only one mark
    "style": ("striped",),
    "object": ("star", "circle", "diamond"),
    "identity": tuple(people()[i].name for i in (10, 60, 110)),
    "explicit": ("sigil",),
}
LRS = (2.3e-4, 4e-4, 7e-4, 2e-3)  # what every trained method is tried with at first; `study tuning` goes on from there
FASTER = {"style": (OURS,)}  # since it then erases more as trained; at UA 97 the first costs less, or as much, for all
KINDS = tuple(TEST_CONCEPTS)
WIDE: dict[str, Any] = {
    "projections": "keys_and_values", "tokens": "last_and_later", "retain_tokens": "all", "augment": 0,
    "threshold": 0.01, "ridge": 0.05,
}  # fmt: skip
AUTHORS = {"scale": 1.7}  # the authors' own settings, but stronger
SPEED: dict[str, dict[str, Any]] = {  # the best of closed_forms in `advanchor study tuning`
    "style": WIDE | {"scale": 4.0},
    "object": WIDE | {"scale": 4.0},
    "identity": WIDE | {"ridge": 0.01},
    "explicit": AUTHORS,
}
UCE_RETAINED = 100  # prompts of the base's own world
UCE: dict[str, tuple[Literal["last", "last_and_later"], bool]] = {  # likewise: tokens, whether prompts are retained
    "style": ("last_and_later", False),
    "object": ("last_and_later", False),
    "identity": ("last_and_later", True),
    "explicit": ("last", False),
}
ANCHOR_LR = {"style": 1.5e-3, "object": 1.5e-3, "identity": 1.5e-3, "explicit": 3e-3}
FROM_NEUTRAL: dict[str, Any] = {"start": "superclass", "anchor_steps": 5, "margin": 0.3, "anchor_lr": 3e-3}
FROM_SIMILAR: dict[str, Any] = {"start": "similar", "anchor_steps": 10, "margin": 0.5, "anchor_lr": 3e-3}
STARTED_SIMILAR = ("object", "identity")  # kinds whose search starts at the most similar concept


def trained(concept: Concept, lr: float) -> dict[str, Any]:
    """What all that is trained has in common."""
    return {"steps": 70, "batch_size": 4, "num_latents": 32, "lr": lr}


def chosen_lr(label: str, concept: Concept) -> float:
    """As validation concepts want it."""
    return 2e-3 if label in FASTER.get(concept.kind, ()) else 7e-4


def adversarial(concept: Concept, lr: float | None = None, **changed: Any) -> adv_anchor.Settings:
    """The paper's method, also on the tokens after the concept."""
    searched = {"anchor_steps": 10, "anchor_lr": ANCHOR_LR[concept.kind], "perturb_tokens": "concept_and_later"}
    return adv_anchor.Settings(**trained(concept, lr or chosen_lr(LATER, concept)) | searched | changed)


def guarded(concept: Concept, lr: float | None = None, **changed: Any) -> guarded_anchor.Settings:
    """Our method as it was tuned: where its search starts differs by kind."""
    searched = FROM_SIMILAR if concept.kind in STARTED_SIMILAR else FROM_NEUTRAL
    return guarded_anchor.Settings(**trained(concept, lr or chosen_lr(OURS, concept)) | searched | changed)


def among_others(concept: Concept, lr: float) -> age.Settings:
    """AGE's searched mixture of the kind's other concepts, none of them hidden; for the mark, of sampled prompts."""
    told = tuple(name for name in of_same_kind(concept) if name not in HIDDEN)
    return age.Settings(**trained(concept, lr), candidates=told)


def trained_rows(concept: Concept) -> dict[str, Callable[[float], MethodSettings]]:
    """Every method that is trained, by its learning rate; towards a similar concept only where there is one."""
    found: dict[str, Callable[[float], MethodSettings]] = {
        SUPERCLASS: lambda lr: fixed_anchor.Settings(**trained(concept, lr)),
        "esd": lambda lr: esd.Settings(**trained(concept, lr)),
        "age": lambda lr: among_others(concept, lr),
        PAPER: lambda lr: adversarial(concept, lr, perturb_tokens="concept"),
        LATER: lambda lr: adversarial(concept, lr),
        OURS: lambda lr: guarded(concept, lr),
    }
    if concept.similar:
        found[SIMILAR] = lambda lr: fixed_anchor.Settings(**trained(concept, lr), anchor="concept")
    return found


def methods_for(base: Base, concept: Concept) -> dict[str, MethodSettings]:
    """The rows of the table for one concept: every method as it was tuned, and ours without its search."""
    found = {label: make(chosen_lr(label, concept)) for label, make in trained_rows(concept).items()}
    tokens, retained = UCE[concept.kind]
    found["uce"] = uce.Settings(tokens=tokens, retain=retained_prompts(base, concept) if retained else ())
    found["speed"] = speed.Settings(**SPEED[concept.kind])
    return found | {NO_SEARCH: guarded(concept, anchor_steps=0)}


def retained_prompts(base: Base, concept: Concept) -> tuple[str, ...]:
    """What uce retains, where it retains anything: sampled prompts that do not mention the concept."""
    return tuple(sampled_prompts(base.profile.vocabulary, UCE_RETAINED, 0, [concept.name]))


# --- the comparison: every trained method also behind the projection, nobody told of the hidden names

BARE_NEUTRAL = {"identity": "person"}  # of other kinds: shape
PROJECTED = "{} + projection"
BARE_ESD, BARE_UCE = "esd, bare name", "uce, bare name"
HAVE_PROJECTION = (OURS, NO_SEARCH)

Variant = tuple[Concept, MethodSettings]


def bare(concept: Concept) -> Concept:
    """The concept as the authors of esd and uce give it: its name and nothing else."""
    return concept.model_copy(update={"templates": ("{}",), "neutral": (BARE_NEUTRAL.get(concept.kind, "shape"),)})


def projected(settings: MethodSettings) -> MethodSettings:
    """The same method behind the projection, which is not told of the hidden names."""
    return settings.model_copy(update={"retain_weight": 1.0, "retain_without": HIDDEN})


def nearest_anchor(concept: Concept, lr: float) -> fixed_anchor.Settings:
    """Towards the similar concept, or the superclass where there is none."""
    return fixed_anchor.Settings(**trained(concept, lr), anchor="concept" if concept.similar else "superclass")


def fair_rows(base: Base, concept: Concept) -> dict[str, Variant]:
    """Every row of the comparison for one concept: what it is erased with, and how."""
    plain: dict[str, Variant] = {
        SIMILAR if concept.similar else SUPERCLASS: (concept, nearest_anchor(concept, 7e-4)),
        PAPER: (concept, adversarial(concept, 7e-4, perturb_tokens="concept")),
        LATER: (concept, adversarial(concept, 7e-4)),
        "age": (concept, among_others(concept, 7e-4)),
        BARE_ESD: (bare(concept), esd.Settings(**trained(concept, 7e-4))),
    }
    behind = {PROJECTED.format(label): (own, projected(settings)) for label, (own, settings) in plain.items()}
    ours = {OURS: guarded(concept), NO_SEARCH: guarded(concept, anchor_steps=0)}
    known = tuple(sampled_prompts(base.profile.vocabulary, 1000, 0, HIDDEN))
    closed: dict[str, Variant] = {
        BARE_UCE: (bare(concept), uce.Settings()),
        "speed": (concept, speed.Settings(**SPEED[concept.kind], retain=known, retain_prompts=0)),
    }
    return plain | behind | {label: (concept, projected(own)) for label, own in ours.items()} | closed


def listed(base: Base, size: Size) -> list[Concept]:
    kinds = ("style",) if size.quick else KINDS
    return [c for kind in kinds for c in concepts(base, kind, TEST_CONCEPTS[kind][: size.per_kind])]


def trials_of(found: Sequence[Concept], rows: Callable[[Concept], dict[str, Variant]], size: Size) -> list[Trial]:
    """Every concept with every row and every seed; what draws nothing is done once."""
    return [
        Trial(label, own, shortened(settings) if size.quick else settings, seed)
        for concept in found
        for label, (own, settings) in rows(concept).items()
        for seed in range(size.seeds if isinstance(settings, TrainingSettings) else 1)
    ]


def trials(base: Base, size: Size) -> list[Trial]:
    return trials_of(listed(base, size), lambda concept: fair_rows(base, concept), size)


def unprojected(method: str) -> bool:
    return method not in HAVE_PROJECTION and not method.endswith(PROJECTED.format(""))


def summary(records: Sequence[Row]) -> list[Row]:
    """A row per kind and method, then one per kind: the best rival without a projection, at several targets."""
    return [*evidence.summary(records, OURS), *evidence.by_target(records, OURS, unprojected)]


def records(base: Base, found: Sequence[Found], size: Size) -> list[Row]:
    return evidence.records(found)


RIVALS = Study(
    "Methods compared at the same UA", trials, WIDE_EVALUATION, records, evidence.COLUMNS, evidence.plot, FAIR_FOLDER,
    evidence.EXPLAINED, summary,
)  # fmt: skip
