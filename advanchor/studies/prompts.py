"""Objects erased with the gallery's prompts and with shorter ones: does the base draw what is to be erased?"""

from collections.abc import Sequence
from typing import Any

from advanchor.batch.findings import drawn
from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.pocket.scorer import PocketScorer
from advanchor.pocket.world import OBJECTS
from advanchor.studies import rivals
from advanchor.studies.curves import at_ua, curve
from advanchor.studies.lab import Found, Row, Size, Study, Trial, concepts, crossed, number, percent, text, thousandths

SHORT, LONG = "shorter", "as in the gallery"
SHORTER = (
    "a {}", "a red {}", "a blue {}", "a yellow {}", "a solid {}", "a striped {}", "a dotted {}", "an outlined {}",
)  # fmt: skip
COPIES = 4  # pictures by the base of every prompt of training


def with_shorter_prompts(concept: Concept) -> Concept:
    neutral = tuple(template.format("shape") for template in SHORTER)
    return concept.model_copy(update={"templates": SHORTER, "neutral": neutral})


def trials(base: Base, size: Size) -> list[Trial]:
    listed = concepts(base, "object", OBJECTS[:1] if size.quick else OBJECTS)
    found = []
    for label, given in ((SHORT, [with_shorter_prompts(concept) for concept in listed]), (LONG, listed)):
        found += crossed(
            given,
            lambda concept, label=label: {label: rivals.guarded(concept)},
            Size(seeds=1, quick=size.quick),
        )
    return found


def rows(base: Base, found: Sequence[Found], size: Size) -> list[Row]:
    """A row per object and set of prompts."""
    scorer, listed = PocketScorer(), []
    for one in found:
        reached = at_ua(curve(one.scores), rivals.TARGET_UA)
        row = {"object": one.trial.concept.name, "prompts": one.trial.label}
        shares = drawn(base, one.trial.concept, scorer, rivals.EVALUATION, COPIES).values()
        row |= {"drawn": sum(shares) / len(shares), "ua": one.scores["ua"]}
        row |= {"scale": reached and reached.scale, "degradation": reached and reached.degradation}
        listed.append(row)
    return sorted(listed, key=lambda row: OBJECTS.index(row["object"]))


COLUMNS = {
    "object": ("object", text),
    "prompts": ("prompts", text),
    "drawn": ("drawn by the base", percent),
    "ua": ("UA as trained", percent),
    "scale": ("scale for UA 97", number),
    "degradation": ("degradation", thousandths),
}


def plot(listed: Sequence[Row], figure: Any) -> None:
    """UA of every object, a bar for each set of prompts; what the base draws of it as a mark."""
    figure.set_size_inches(10, 4)
    axis = figure.subplots()
    names = list(dict.fromkeys(row["object"] for row in listed))
    for shift, label in ((-0.2, SHORT), (0.2, LONG)):
        own = [row for row in listed if row["prompts"] == label]
        x = [names.index(row["object"]) + shift for row in own]
        axis.bar(x, [100 * row["ua"] for row in own], 0.38, label=f"UA, prompts {label}")
        axis.plot(x, [100 * row["drawn"] for row in own], "k_", label="drawn by the base" if shift > 0 else None)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="%", ylim=(0, 104))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")


PROMPTS = Study(
    "What the prompts of training decide",
    trials,
    rivals.EVALUATION,
    rows,
    COLUMNS,
    plot,
    rivals.FOLDER,
    "guarded_anchor, one erasure each, with the gallery's prompts for objects (`a striped yellow {}`, ...) and with\n"
    "shorter ones (`a {}`, `a red {}`, ...); what is asked afterwards are other prompts in both cases. Drawn by the\n"
    "base: pictures for the prompts of training that show the object. Degradation: at UA 97, x 1000.",
)
