"""What brings an erased concept back: soft prompts, words in front, other wordings, further training."""

from collections.abc import Sequence
from typing import Any

from advanchor.evaluation.settings import EvaluationSettings
from advanchor.methods import hardened_anchor
from advanchor.models.base import Base
from advanchor.studies import rivals
from advanchor.studies.curves import mean_interval
from advanchor.studies.lab import Found, Row, Size, Study, Trial, around, concepts, crossed, percent, text, thousandths

ATTACKS = ("soft_prompt", "prefix", "paraphrases", "relearning")
LABELS = (rivals.OURS, rivals.LATER, rivals.SUPERCLASS, rivals.SIMILAR, "esd")
HARDENED = "hardened_anchor"
WEAKER_GUARDS = (0.1, 0.01, 0.0)  # retain_weight, 1 in the comparison


def trials(base: Base, size: Size) -> list[Trial]:
    kinds = ("style",) if size.quick else rivals.TEST_CONCEPTS
    listed = [c for kind in kinds for c in concepts(base, kind, rivals.TEST_CONCEPTS[kind][: min(2, size.per_kind)])]

    def chosen(concept: Any) -> dict[str, Any]:
        found = {label: own for label, own in rivals.methods_for(base, concept).items() if label in LABELS}
        for weight in WEAKER_GUARDS:
            found[f"{rivals.OURS}, retain_weight {weight:g}"] = rivals.guarded(concept, retain_weight=weight)
        if concept.kind in rivals.STARTED_SIMILAR:
            wide = rivals.FROM_NEUTRAL | {"retain_weight": 0.0}
            found[f"{rivals.OURS}, retain_weight 0, from the neutral prompt"] = rivals.guarded(concept, **wide)
        hardened = rivals.trained(concept, rivals.chosen_lr(HARDENED, concept)) | rivals.FROM_NEUTRAL
        found[HARDENED] = hardened_anchor.Settings(**hardened)
        return found

    return crossed(listed, chosen, Size(size.per_kind, 1, size.quick))


def rows(base: Base, found: Sequence[Found], size: Size) -> list[Row]:
    """A row per kind and method: how often the concept is drawn without an attack and with each."""
    groups = dict.fromkeys((one.trial.concept.kind, one.trial.label) for one in found)
    listed = []
    for kind, label in groups:
        own = [one.scores for one in found if (one.trial.concept.kind, one.trial.label) == (kind, label)]
        row: Row = {"kind": kind, "method": label, "erasures": len(own)}
        row["without"] = mean_interval([1 - scores["ua"] for scores in own])
        row["degradation"] = mean_interval([scores["degradation"] for scores in own])
        for attack in ATTACKS:
            row[attack] = mean_interval([scores["attacks"][attack]["attacked"] for scores in own])
        listed.append(row)
    return listed


COLUMNS = {
    "kind": ("kind", text),
    "method": ("method", text),
    "erasures": ("erasures", text),
    "without": ("no attack", around(percent)),
    "soft_prompt": ("soft prompt", around(percent)),
    "prefix": ("words in front", around(percent)),
    "paraphrases": ("other wordings", around(percent)),
    "relearning": ("trained on", around(percent)),
    "degradation": ("degradation", around(thousandths)),
}


def plot(listed: Sequence[Row], figure: Any) -> None:
    """How often the concept is drawn, by attack and method; a panel per kind."""
    kinds, labels = (list(dict.fromkeys(row[key] for row in listed)) for key in ("kind", "method"))
    figure.set_size_inches(5 * len(kinds), 4.5)
    attacks = ("without", *ATTACKS)
    handles: dict[str, Any] = {}
    for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for row in (row for row in listed if row["kind"] == kind):
            place = labels.index(row["method"])
            x = [i + 0.8 * place / len(labels) for i in range(len(attacks))]
            heights = [100 * row[attack][0] for attack in attacks]
            handles[row["method"]] = axis.bar(x, heights, 0.8 / len(labels), color=f"C{place}")
        titles = [COLUMNS[attack][0] for attack in attacks]
        axis.set_xticks([i + 0.4 for i in range(len(attacks))], titles, fontsize="x-small")
        axis.set(title=kind, ylabel="concept drawn, %", ylim=(0, 103))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize="small")


ROBUSTNESS = Study(
    "What brings a concept back",
    trials,
    EvaluationSettings(**rivals.PICTURES, attacks=ATTACKS),
    rows,
    COLUMNS,
    plot,
    "robustness",
    "The share of the concept's pictures that still show it, in percent, at the scale that each delta was trained to.\n"
    "Soft prompts and words in front are searched with the erased model's own weights. Further training is on\n"
    "pictures without the concept. Degradation is the distance of retained pictures in classifier features, x 1000.\n"
    "In brackets: 95 % intervals over erasures.",
)
