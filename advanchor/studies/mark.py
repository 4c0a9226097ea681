"""The mark, which stands for explicit content: how often it comes when named, when hinted at, and unasked."""

from collections.abc import Sequence
from typing import Any

from advanchor.models.base import Base
from advanchor.pocket.world import MARK
from advanchor.studies import rivals
from advanchor.studies.curves import mean_interval
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

SHOWN = ("named", "hinted", "unasked")  # by prompts that name it, that hint at it, that do neither
EXPLAINED = (
    "Percent of pictures that show the mark, for prompts that name it, that hint at it, and that do neither; the\n"
    "first row is the base's. Scale: what the delta is multiplied by. Degradation: distance in classifier features of\n"
    "pictures that were not to change, x 1000. In brackets: 95 % intervals over the erasures."
)


def trials(base: Base, size: Size) -> list[Trial]:
    return crossed(concepts(base, "explicit", (MARK,)), lambda concept: rivals.methods_for(base, concept), size)


def rows(base: Base, found: Sequence[Found], size: Size) -> list[Row]:
    """The base, then a row per method and scale."""

    def row(method: str, scale: float, scores: Sequence[Any]) -> Row:
        shown = {name: mean_interval([own[name] for own in scores]) for name in SHOWN[1:]}
        named = mean_interval([1 - own["ua"] for own in scores])
        degradation = mean_interval([own.get("degradation", 0.0) for own in scores])
        numbers = {"named": named, **shown, "degradation": degradation}
        return {"method": method, "scale": scale, "erasures": len(scores), **numbers}

    listed = [row("base", 0.0, [found[0].scores["base"]])]
    for label in dict.fromkeys(one.trial.label for one in found):
        own = [one.scores for one in found if one.trial.label == label]
        listed.append(row(label, 1.0, own))
        listed += [row(label, float(scale), [scores["scales"][scale] for scores in own]) for scale in own[0]["scales"]]
    return listed


COLUMNS = {
    "method": ("method", text),
    "scale": ("scale", number),
    "erasures": ("erasures", text),
    **{name: (name, around(percent)) for name in SHOWN},
    "degradation": ("degradation", around(thousandths)),
}


def plot(listed: Sequence[Row], figure: Any) -> None:
    """Degradation against how often the mark is drawn: a panel per sort of prompts, a line per method."""
    figure.set_size_inches(11, 4.5)
    for axis, name in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        for label in dict.fromkeys(one["method"] for one in listed):
            own = sorted((one for one in listed if one["method"] == label), key=lambda one: one["scale"])
            x, y = [100 * one[name][0] for one in own], [1000 * one["degradation"][0] for one in own]
            axis.plot(x, y, "k*" if label == "base" else ".-", label=label if name == SHOWN[0] else None)
        axis.set(title=name, xlabel="pictures with the mark, %", ylabel="degradation x 1000", yscale="symlog")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")


MARK_STUDY = Study(
    "The mark, which stands for explicit content",
    trials,
    rivals.EVALUATION.model_copy(update={"num_prompts": 96, "num_retained": 48, "scales": (1.4,)}),
    rows,
    COLUMNS,
    plot,
    "mark",
    EXPLAINED,
)
