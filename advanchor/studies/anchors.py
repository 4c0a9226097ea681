"""The paper's own analysis: the nearer a fixed anchor is to the concept, the less is lost, and the less is erased?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from advanchor.concepts import Concept
from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods import MethodSettings, fixed_anchor
from advanchor.models.base import Base
from advanchor.models.encoding import meanings
from advanchor.models.text import fill
from advanchor.pocket.world import OBJECTS, STYLES, people
from advanchor.studies import rivals
from advanchor.studies.curves import Estimate, estimate
from advanchor.studies.lab import (
    Found,
    Row,
    Size,
    Study,
    Trial,
    around,
    concepts,
    crossed,
    number,
    percent,
    text,
    thousandths,
)

CONCEPTS = {
    "style": ("striped", "dotted"),
    "object": ("star", "ring"),
    "identity": (people()[0].name, people()[100].name),
}
CHOICES = {"style": STYLES, "object": OBJECTS, "identity": tuple(person.name for person in people()[:200:17])}
SUPERCLASS, EMPTY = "superclass", "empty prompt"


def no_concept(concept: Concept) -> dict[str, MethodSettings]:
    """The superclass, the empty prompt, the searched anchor, all at the same rate."""
    lr = rivals.LRS[0]
    trained = rivals.trained(concept, lr)
    return {
        SUPERCLASS: fixed_anchor.Settings(**trained),
        EMPTY: fixed_anchor.Settings(**trained, anchor="empty"),
        rivals.LATER: rivals.adversarial(concept, lr),
    }


def other_concepts(concept: Concept) -> list[Concept]:
    """The concept once for each other one of its kind, which is named as the similar one."""
    others = [name for name in CHOICES[concept.kind] if name != concept.name]
    return [concept.model_copy(update={"similar": name}) for name in others]


def trials(base: Base, size: Size) -> list[Trial]:
    kinds = ("style",) if size.quick else CONCEPTS
    listed = [c for kind in kinds for c in concepts(base, kind, CONCEPTS[kind][: min(2, size.per_kind)])]
    once = replace(size, seeds=1)

    def towards(concept: Concept) -> dict[str, MethodSettings]:
        settings = fixed_anchor.Settings(**rivals.trained(concept, rivals.LRS[0]), anchor="concept")
        return {concept.similar: settings}

    others = [other for concept in listed for other in other_concepts(concept)]
    return [*crossed(listed, no_concept, once), *crossed(others, towards, once)]


@torch.no_grad()
def similarity(base: Base, concept: Concept, anchor: str) -> float | None:
    """Cosine of what the concept's prompts and the anchor's mean to the text encoder; None for a searched anchor."""
    if anchor == rivals.LATER:
        return None
    prompts = {SUPERCLASS: concept.neutral[0], EMPTY: ""}
    other = prompts.get(anchor, fill(concept.templates[0], anchor))
    own, its = meanings(base, [fill(concept.templates[0], concept.name), other])
    return float(own @ its)


def rows(base: Base, found: Sequence[Found], size: Size) -> list[Row]:
    """A row per concept and anchor, the nearest first; then, for every kind, how similarity goes with the others."""
    listed = []
    for one in found:
        concept, label = one.trial.concept, one.trial.label
        near = similarity(base, concept, label)
        figures = {name: (one.scores[name], None, None) for name in ("ua", "ira", "cra", "degradation")}
        listed.append({"kind": concept.kind, "concept": concept.name, "anchor": label, "similarity": near, **figures})
    listed.sort(key=lambda row: (list(CONCEPTS).index(row["kind"]), row["concept"], -(row["similarity"] or 2)))
    return [*listed, *(correlations(listed, kind) for kind in dict.fromkeys(row["kind"] for row in listed))]


def correlations(listed: Sequence[Row], kind: str) -> Row:
    """Spearman's, within each concept and over the concepts of a kind together."""
    own = [row for row in listed if row["kind"] == kind and row["similarity"] is not None]
    names = ("ua", "ira", "cra", "degradation")
    return {
        "kind": kind,
        "concept": "all",
        "anchor": "correlation with similarity",
        **{f"correlation {name}": correlation(own, name) for name in names},
    }


def correlation(listed: Sequence[Row], name: str) -> Estimate:
    pairs = [(row["concept"], row["similarity"], row[name][0]) for row in listed if row[name][0] is not None]
    return estimate(pairs, spearman)


def spearman(pairs: Sequence[tuple[str, float, float]]) -> float | None:
    """Of ranks within each concept's own anchors, (concept, x, y); None where one of them does not vary."""
    x, y = (ranks_within(pairs, column) for column in (1, 2))
    return None if x.std() == 0 or y.std() == 0 else float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def ranks_within(pairs: Sequence[tuple[Any, ...]], column: int) -> torch.Tensor:
    """The rank of each value among its concept's, from 0 to 1; equal ones share their mean rank."""
    ranks = []
    for pair in pairs:
        others = [other[column] for other in pairs if other[0] == pair[0]]
        below = sum(other < pair[column] for other in others)
        equal = sum(other == pair[column] for other in others)
        ranks.append((below + (equal - 1) / 2) / max(len(others) - 1, 1))
    return torch.tensor(ranks, dtype=torch.float64)


COLUMNS = {
    "kind": ("kind", text),
    "concept": ("concept", text),
    "anchor": ("anchor", text),
    "similarity": ("similarity", number),
    "ua": ("UA", around(percent)),
    "ira": ("IRA", around(percent)),
    "cra": ("CRA", around(percent)),
    "degradation": ("degradation", around(thousandths)),
    **{
        f"correlation {name}": (f"correlation with {title}", around(number))
        for name, title in {"ua": "UA", "ira": "IRA", "cra": "CRA", "degradation": "degradation"}.items()
    },
}


def plot(listed: Sequence[Row], figure: Any) -> None:
    """UA and degradation against similarity; a panel per kind and figure, a colour per concept."""
    kinds = list(dict.fromkeys(row["kind"] for row in listed))
    figure.set_size_inches(4 * len(kinds), 6)
    panels = figure.subplots(2, len(kinds), squeeze=False)
    for column, kind in enumerate(kinds):
        points = [row for row in listed if row["kind"] == kind and "ua" in row]
        for name in dict.fromkeys(row["concept"] for row in points):
            own = [row for row in points if row["concept"] == name]
            for axis, figure_name, factor in zip(panels[:, column], ("ua", "degradation"), (100, 1000), strict=True):
                fixed = [row for row in own if row["similarity"] is not None]
                shown = axis.scatter(
                    [row["similarity"] for row in fixed], [factor * row[figure_name][0] for row in fixed], label=name
                )
                for row in own:
                    if row["similarity"] is None:
                        axis.axhline(factor * row[figure_name][0], color=shown.get_facecolor()[0], linestyle=":")
        panels[0, column].set(title=kind, ylabel="UA, %", ylim=(-3, 103))
        panels[1, column].set(xlabel="similarity of the anchor", ylabel="degradation x 1000", ylim=(0, None))
        panels[0, column].legend(fontsize="x-small")


ANCHORS = Study(
    "Which anchor? Similarity, erasure and what is lost",
    trials,
    EvaluationSettings(**rivals.PICTURES),
    rows,
    COLUMNS,
    plot,
    "settings",
    "Similarity: cosine of the two prompts' meanings to the text encoder. Correlations: Spearman's, of ranks within a\n"
    "concept's own anchors, with 95 % intervals. Dotted lines in the plot: the searched anchor.",
)
