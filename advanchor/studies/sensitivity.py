"""Where a concept is decided: an erasure on some layers, timesteps or tokens only, and at fractions of itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advanchor.concepts import CONCEPT_SLOT, Concept
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.exam import recognised
from advanchor.fusion.ways.neurons import steps_after
from advanchor.methods import MethodSettings
from advanchor.models.base import Base
from advanchor.models.text import fill
from advanchor.pocket.scorer import PocketScorer
from advanchor.studies import rivals
from advanchor.studies.curves import mean_interval
from advanchor.studies.lab import Found, Row, Size, Study, Trial, around, asked, concepts, crossed, percent, text

SCALES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
QUARTERS = ((0, 250), (250, 500), (500, 750), (750, 1000))  # of the timesteps; 1000 is pure noise


@dataclass(frozen=True)
class Part:
    """Where a delta acts: in which layers, at which timesteps, at which tokens; by default everywhere."""

    layers: Callable[[str], bool] = lambda name: True
    timesteps: tuple[int, int] = (0, 1000)
    tokens: Callable[[Tensor], Tensor] | None = None  # steps after the concept's last token, -1 before it -> acts
    scale: float = 1.0

    def without(self) -> "Part":
        """Everywhere else. Only one of the three may be narrowed."""
        if self.tokens is not None:
            chosen = self.tokens
            return Part(tokens=lambda after: ~chosen(after))
        if self.timesteps != (0, 1000):
            return replace(self, timesteps=(self.timesteps[1], self.timesteps[0]))  # wraps around
        return Part(layers=lambda name: not self.layers(name))

    def acts_at(self, timestep: float) -> bool:
        first, end = self.timesteps
        return first <= timestep < end if first < end else not end <= timestep < first


PARTS: dict[str, dict[str, Part]] = {
    "layers": {
        "down": Part(lambda name: name.startswith("down_blocks")),
        "middle": Part(lambda name: name.startswith("mid_block")),
        "up": Part(lambda name: name.startswith("up_blocks")),
        "keys": Part(lambda name: name.endswith("to_k.weight")),
        "values": Part(lambda name: name.endswith("to_v.weight")),
    },
    "timesteps": {f"{first} to {end}": Part(timesteps=(first, end)) for first, end in QUARTERS},
    "tokens": {
        "before the concept": Part(tokens=lambda after: after == -1),
        "the concept's last": Part(tokens=lambda after: after == 0),
        "the next three": Part(tokens=lambda after: (after >= 1) & (after <= 3)),
        "all later ones": Part(tokens=lambda after: after > 3),
    },
}


@contextmanager
def acting(unet: nn.Module, delta: Mapping[str, Tensor], part: Part, after: Tensor) -> Iterator[None]:
    """The delta of keys and values acts, in this block, only where `part` says.

    after (B, L): steps after the concept, of the prompts that pictures are being made of; the rows of a forward are the
    empty prompt's and theirs, one half each. The empty prompt has the delta at all tokens.
    """
    own = torch.ones_like(after, dtype=torch.bool) if part.tokens is None else part.tokens(after)
    mask = part.scale * torch.cat([torch.ones_like(own), own]).float().unsqueeze(-1)  # (2 B, L, 1)
    now = {"on": True}

    def look(_: Any, arguments: tuple[Any, ...]) -> None:
        now["on"] = part.acts_at(float(arguments[1].flatten()[0]))

    def change(weight: Tensor) -> Callable[..., Tensor]:
        return lambda _, arguments, output: output + mask * F.linear(arguments[0], weight) if now["on"] else output

    hooks = [unet.register_forward_pre_hook(look)]
    for name, weight in delta.items():
        if part.layers(name):
            hooks.append(unet.get_submodule(name.removesuffix(".weight")).register_forward_hook(change(weight)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Probe:
    """How much of a concept is gone when only a part of its erasure acts."""

    def __init__(self, base: Base, size: Size) -> None:
        self.base, self.evaluator = base, Evaluator(base, PocketScorer(), asked(SENSITIVITY, size))

    def ua(self, found: Found, part: Part) -> float:
        """Share of pictures in which the concept is not recognised."""
        name, settings = found.trial.concept.name, self.evaluator.settings
        exam = self.evaluator.scorer.exam(name, settings.num_prompts)
        unique = dict.fromkeys(question.prompt.replace(name, CONCEPT_SLOT, 1) for question in exam.erased)
        prompts = [fill(template, name) for template in unique for _ in range(settings.images_per_prompt)]
        after = steps_after(self.base.concept_tokens(prompts))
        with acting(self.base.backbone, found.delta(), part, after):
            seen = self.evaluator.see(exam.erased, settings.images_per_prompt)
        return 1 - recognised(exam, seen.answers)


def labelled(concept: Concept, base: Base) -> dict[str, MethodSettings]:
    return {rivals.OURS: rivals.methods_for(base, concept)[rivals.OURS]}


def trials(base: Base, size: Size) -> list[Trial]:
    kinds = ("style",) if size.quick else rivals.TEST_CONCEPTS
    listed = [c for kind in kinds for c in concepts(base, kind, rivals.TEST_CONCEPTS[kind][:1])]
    return crossed(listed, lambda concept: labelled(concept, base), Size(size.per_kind, 1, size.quick))


def rows(base: Base, found: Sequence[Found], size: Size) -> list[Row]:
    """By kind: a row per part with UA when only it acts and when all else acts, and a row per scale."""
    probe = Probe(base, size)
    listed = []
    for kind in dict.fromkeys(one.trial.concept.kind for one in found):
        own = [one for one in found if one.trial.concept.kind == kind]
        for dimension, parts in PARTS.items():
            for name, part in parts.items():
                only, without = ([probe.ua(one, chosen) for one in own] for chosen in (part, part.without()))
                listed.append(
                    {"kind": kind, "of": dimension, "part": name, "ua": mean_interval(only)}
                    | {"without": mean_interval(without)}
                )
        for scale in SCALES:
            ua = mean_interval([probe.ua(one, Part(scale=scale)) for one in own])
            listed.append({"kind": kind, "of": "scale", "part": f"{scale:.1f}", "ua": ua})
    return listed


COLUMNS = {
    "kind": ("kind", text),
    "of": ("part of", text),
    "part": ("part", text),
    "ua": ("UA, only there", around(percent)),
    "without": ("UA, everywhere else", around(percent)),
}


def plot(listed: Sequence[Row], figure: Any) -> None:
    """UA by part, a panel per dimension and a colour per kind; scale and response as lines."""
    kinds, dimensions = (list(dict.fromkeys(row[key] for row in listed)) for key in ("kind", "of"))
    figure.set_size_inches(4 * len(dimensions), 4)
    for axis, dimension in zip(figure.subplots(1, len(dimensions), squeeze=False)[0], dimensions, strict=True):
        for number, kind in enumerate(kinds):
            own = [row for row in listed if (row["kind"], row["of"]) == (kind, dimension)]
            heights = [100 * row["ua"][0] for row in own]
            if dimension == "scale":
                axis.plot([float(row["part"]) for row in own], heights, marker=".", label=kind)
                axis.legend(fontsize="small")
            else:
                places = [i + 0.8 * number / len(kinds) for i in range(len(own))]
                axis.bar(places, heights, 0.8 / len(kinds), label=kind)
                names = [row["part"] for row in own]
                axis.set_xticks([i + 0.3 for i in range(len(own))], names, fontsize="x-small", rotation=20)
        axis.set(title=dimension, ylim=(0, 103), ylabel="UA, %")


SENSITIVITY = Study(
    "Where a concept is decided",
    trials,
    rivals.EVALUATION,
    rows,
    COLUMNS,
    plot,
    rivals.FOLDER,
    "The delta of guarded_anchor acts on a part of the model only, or everywhere else: UA in percent.\n"
    "Timesteps: 1000 is pure noise. In brackets: 95 % intervals over erasures.",
)
