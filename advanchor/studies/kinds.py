"""One kind of concept after another: what each erasure leaves, at the scale that it was trained to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from advanchor.models.base import Base
from advanchor.pocket.world import OBJECTS, STYLES
from advanchor.studies import rivals
from advanchor.studies.curves import mean_interval
from advanchor.studies.lab import Found, Row, Size, Study, Trial, around, concepts, crossed, percent, text, thousandths

LABELS = (rivals.OURS, rivals.PAPER, rivals.SUPERCLASS)
EXPLAINED = (
    "IRA, CRA and alignment: change against the base, in points. Degradation and diversity: distances in classifier\n"
    "features, x 1000. In brackets: 95 % intervals over the erasures, where there are several."
)


def rows_of(found: Sequence[Found]) -> list[Row]:
    """A row per concept and method, then one per method over all of them."""
    rows = []
    names = list(dict.fromkeys(one.trial.concept.name for one in found))
    labels = list(dict.fromkeys(one.trial.label for one in found))
    for label in labels:
        own = [one for one in found if one.trial.label == label]
        for name in names:
            rows.append(row([one for one in own if one.trial.concept.name == name]) | {"concept": name})
        if len(names) > 1:
            rows.append(row(own) | {"concept": "all"})
    return rows


def row(found: Sequence[Found]) -> Row:
    def change(name: str) -> Any:
        pairs = [(one.scores[name], one.scores["base"][name]) for one in found]
        return mean_interval([own - base for own, base in pairs if own is not None and base is not None])

    return {
        "method": found[0].trial.label,
        "erasures": len(found),
        "ua": mean_interval([one.scores["ua"] for one in found]),
        **{name: change(name) for name in ("ira", "cra", "alignment", "diversity")},
        "degradation": mean_interval([one.scores["degradation"] for one in found]),
    }


COLUMNS = {
    "concept": ("concept", text),
    "method": ("method", text),
    "erasures": ("erasures", text),
    "ua": ("UA", around(percent)),
    "ira": ("IRA", around(percent)),
    "cra": ("CRA", around(percent)),
    "alignment": ("alignment", around(percent)),
    "degradation": ("degradation", around(thousandths)),
    "diversity": ("diversity", around(thousandths)),
}


def plot(rows: Sequence[Row], figure: Any) -> None:
    """UA against degradation: a point per concept, a colour per method."""
    axis = figure.subplots()
    figure.set_size_inches(7, 5)
    for label in dict.fromkeys(one["method"] for one in rows):
        own = [one for one in rows if one["method"] == label and one["concept"] != "all"]
        x, y = [100 * one["ua"][0] for one in own], [1000 * one["degradation"][0] for one in own]
        axis.scatter(x, y, label=label)
        for one, *place in zip(own, x, y, strict=True):
            side = {"xytext": (-5, -2), "ha": "right"} if place[0] > 50 else {"xytext": (5, -2), "ha": "left"}
            axis.annotate(one["concept"], place, textcoords="offset points", fontsize="x-small", **side)
    axis.set(xlabel="UA, %", ylabel="degradation x 1000", xlim=(-3, 103), ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")


def study(kind: str, names: Sequence[str], title: str, seeds: int) -> Study:
    """Of one kind; erasures that the comparison of rivals has already are not done again."""

    def trials(base: Base, size: Size) -> list[Trial]:
        chosen = concepts(base, kind, names[: 1 if size.quick else None])
        once = replace(size, seeds=min(seeds, size.seeds))
        return crossed(chosen, lambda c: {k: v for k, v in rivals.methods_for(base, c).items() if k in LABELS}, once)

    return Study(
        title,
        trials,
        rivals.EVALUATION,
        lambda base, found, size: rows_of(found),
        COLUMNS,
        plot,
        rivals.FOLDER,
        EXPLAINED,
    )


STYLES_STUDY = study("style", STYLES, "Every style of the gallery", seeds=1)
OBJECTS_STUDY = study("object", OBJECTS, "Every object of the gallery", seeds=1)
IDENTITIES = study("identity", rivals.TEST_CONCEPTS["identity"], "Eight people of the gallery", seeds=3)
