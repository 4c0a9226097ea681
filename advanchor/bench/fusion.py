"""Fusing on the pocket gallery: how much is gone and how much is left, by method and number of erased concepts.

Half of the retained names are hidden from every method; ACC_s counts those only. ACC_e, ACC_s and H_o are MACE's
(Lu et al. 2024): H_o = 2 / ( 1 / (1 - ACC_e) + 1 / ACC_s ).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from advanchor import models
from advanchor.batch.file import set_override
from advanchor.batch.retain import Retain
from advanchor.bench import joint
from advanchor.concepts import Concept
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.exam import Question, hits, recognised, share
from advanchor.fusion.artifact import applied
from advanchor.fusion.edits import base_tensors
from advanchor.fusion.fuse import fuse, plan_fusion
from advanchor.fusion.gate import Examination, exams_of, retained_questions
from advanchor.fusion.member import Workshop
from advanchor.fusion.retained import Retained
from advanchor.fusion.sources import finished, results_of
from advanchor.fusion.ways import WAYS, FusionSettings
from advanchor.messages import choice
from advanchor.methods import uce
from advanchor.models.base import Base
from advanchor.pocket.scorer import PocketScorer, person_question
from advanchor.pocket.world import people

COPIES = 4  # pictures of every prompt that is retained: 100 of 25 hidden names
FLAGS = ("told", "half")  # of by_fusion, in labels of the command
Edit = Callable[[Base, str, Sequence[Concept], Retain], AbstractContextManager]  # inside it the base is edited


def by_fusion(
    method: str,
    *,
    thinned: bool = False,
    told: bool = False,
    half: bool = False,
    workshop: Workshop | None = None,
    **changed: Any,
) -> Edit:
    """One of the product's own ways, with settings that differ.

    thinned: deltas count for 1 / the square root of how many there are; told: nothing is hidden, which shows what such
    an edit could do at best; half: the fused text encoder, neurons and all, is run in float16.
    """

    @contextmanager
    def edit(base: Base, run: str, concepts: Sequence[Concept], retain: Retain) -> Iterator[None]:
        changes: dict[str, Any] = {"method": method} | changed
        if thinned:
            changes["scale"] = len(concepts) ** -0.5
        if told:
            retain = retain.model_copy(update={"exclude": ()})
        plan = plan_fusion([run], changes, retain, only=[concept.name for concept in concepts])
        fused = fuse(plan, base, workshop=workshop)
        with fused.on(base), in_half(base) if half else nullcontext():
            yield

    return edit


@contextmanager
def in_half(base: Base) -> Iterator[None]:
    """The base encodes prompts in float16 inside this block."""
    whole = base.encoders
    base.encoders = [replace(encoder, module=copy.deepcopy(encoder.module).half()) for encoder in whole]
    try:
        yield
    finally:
        base.encoders = whole


def by_uce(tokens: str) -> Edit:
    """One joint edit with the prompts that the others retain, all together weighing as much as the concepts.

    With the authors' weight of 1 for each prompt, so many of them leave nothing erased.
    """

    def edit(base: Base, run: str, concepts: Sequence[Concept], retain: Retain) -> AbstractContextManager:
        prompts = Retained(base, retain, concepts, FusionSettings()).weights
        weight = sum(len(concept.templates) for concept in concepts) / max(len(prompts), 1)
        settings = uce.Settings(tokens=tokens, retain=tuple(prompts), retain_weight=weight)  # type: ignore[arg-type]
        return applied(base.backbone, uce.joint_edit(base, concepts, settings, base_tensors(base, None)))

    return edit


def by_training(base: Base, run: str, concepts: Sequence[Concept], retain: Retain) -> AbstractContextManager:
    """One delta trained on all of them."""
    members = finished(run, FusionSettings(method="anchor_edit"))
    return applied(base.backbone, joint.train(base, [members[concept.name] for concept in concepts]))


EDITS: dict[str, Edit] = {
    "closed_form": by_fusion("closed_form"),
    "anchor_edit": by_fusion("anchor_edit"),
    "neurons": by_fusion("neurons"),
    "task_arithmetic": by_fusion("task_arithmetic", thinned=True),
    "trained jointly": by_training,
    "joint UCE": by_uce("last"),
    "joint UCE, later tokens": by_uce("last_and_later"),
}


def edit_called(label: str, workshop: Workshop | None = None) -> Edit:
    """An entry of EDITS, or a way of fusing with settings: "closed_form, ridge=1e-3, told". Raises ValueError.

    workshop: where a way that trains keeps its checkpoint.
    """
    name, *changes = label.split(", ")
    if label in EDITS:
        return EDITS[label]
    if name not in WAYS:
        raise ValueError(choice(label, EDITS))
    values = {key: value for key, _, value in (change.partition("=") for change in changes)}
    flags = {flag: True for flag in FLAGS if flag in values}
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if key not in flags:
            set_override(settings, f"{key}={value}")
    FusionSettings(method=name, **settings)  # type: ignore[arg-type]
    return by_fusion(name, workshop=workshop, **flags, **settings)


def harmonic(acc_e: float, acc_s: float) -> float:
    """H_o = 2 / ( 1 / (1 - ACC_e) + 1 / ACC_s ), 0 where a term is infinite."""
    return 0.0 if acc_e >= 1 or acc_s <= 0 else 2 / (1 / (1 - acc_e) + 1 / acc_s)


def hidden_names(erased: Sequence[str]) -> list[str]:
    """Every second of the names that are never erased in this run."""
    return [person.name for person in people() if person.name not in erased][1::2]


class Bench:
    def __init__(self, run: str, settings: Examination, workshop: Workshop | None = None) -> None:
        self.run, self.workshop = run, workshop
        self.concepts = [found.concept for found in results_of(run).values()]
        self.base = models.load("pocket")
        self.evaluator = Evaluator(self.base, PocketScorer(), settings)
        self.hidden = hidden_names([concept.name for concept in self.concepts])
        self.retain = Retain(presets=("gallery/captions",), exclude=tuple(self.hidden))

    def accuracies(self, concepts: Sequence[Concept]) -> dict[str, float | None]:
        """Of the model as it now is: ACC_e by kind and in all, ACC_s over hidden names, objects, styles and colours."""
        settings = self.evaluator.settings
        exams = {name: exam for name, exam in exams_of(self.evaluator, concepts).items() if exam}
        left = {}
        for name, exam in exams.items():
            left[name] = recognised(exam, self.evaluator.see(exam.erased, settings.images_per_prompt).answers)
        found: dict[str, float | None] = {"acc_e": sum(left.values()) / len(left)}
        for kind in dict.fromkeys(concept.kind for concept in concepts):
            values = [left[concept.name] for concept in concepts if concept.kind == kind and concept.name in left]
            found[f"acc_e {kind}"] = sum(values) / len(values) if values else None
        questions = [q for q in retained_questions(list(exams.values())) if "identity" not in q.expected]
        questions += [person_question(i, name) for i, name in enumerate(self.hidden)]
        copies = settings.retained_images_per_prompt
        answers = self.evaluator.see(questions, copies).answers
        asked: list[Question] = [question for question in questions for _ in range(copies)]
        found["acc_s"] = share(hits(asked, answers, only="identity"))
        return found | {a: share(hits(shapes(asked), shapes(asked, answers), only=a)) for a in ("object", "style")}

    def rows(self, counts: Sequence[int], edits: Sequence[str]) -> Iterator[dict[str, Any]]:
        """A row per count and method, the base's own first."""
        for count in counts:
            concepts = self.concepts[:count]
            yield {"erased": count, "method": "base", **self.accuracies(concepts)}
            for name in edits:
                with edit_called(name, self.workshop)(self.base, self.run, concepts, self.retain):
                    found = self.accuracies(concepts)
                h_o = harmonic(found["acc_e"] or 0.0, found["acc_s"] or 0.0)
                yield {"erased": count, "method": name, **found, "h_o": h_o}


def shapes(questions: Sequence[Question], values: Sequence[Any] | None = None) -> list[Any]:
    """The questions about shapes, or what belongs to them in a list of as many values."""
    chosen = values if values is not None else questions
    return [value for question, value in zip(questions, chosen, strict=True) if "style" in question.expected]


COLUMNS = {
    "erased": "erased", "method": "method", "acc_e": "ACC_e", "acc_s": "ACC_s", "h_o": "H_o",
    "object": "objects", "style": "styles",
}  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown; accuracies in percent, H_o as a number."""
    kinds = list(dict.fromkeys(key for row in rows for key in row if key.startswith("acc_e ")))
    columns = COLUMNS | ({kind: kind.replace("acc_e", "ACC_e") for kind in kinds} if len(kinds) > 1 else {})
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(key, row.get(key)) for key in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if key == "h_o" else f"{100 * value:.1f}"
    return "–" if value is None else str(value)


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name
