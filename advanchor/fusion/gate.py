"""The acceptance gate: after fusing, every concept is examined in the fused model, and so is what is retained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from pydantic import Field, field_validator

from advanchor.concepts import Concept
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.exam import Exam, Question, Scorer, UnknownConceptError, hits, recognised, share
from advanchor.evaluation.scorers import scorer_for
from advanchor.evaluation.settings import BAR, AttackName, EvaluationSettings, ScorerSettings
from advanchor.fusion.artifact import Fusion
from advanchor.fusion.member import Member
from advanchor.models.base import Base
from advanchor.models.vocabulary import mentions
from advanchor.rundir.store import Store
from advanchor.settings import Section

Student = Callable[[], AbstractContextManager]


class Bars(Section):
    """What a fused model must reach."""

    ua: float = Field(default=BAR, ge=0, le=1, description="share of a concept's pictures that no longer show it")
    retained: float = Field(
        default=0.9, ge=0, description="accuracy on what is retained, as a share of the base's, by attribute"
    )


def exams_of(evaluator: Evaluator, concepts: Iterable[Concept]) -> dict[str, Exam | None]:
    """The exam of every concept by name; None where the scorer does not know it."""
    exams: dict[str, Exam | None] = {}
    for concept in concepts:
        try:
            exams[concept.name] = evaluator.scorer.exam(concept.name, evaluator.settings.num_prompts)
        except UnknownConceptError:
            exams[concept.name] = None
    return exams


def retained_questions(exams: Sequence[Exam]) -> list[Question]:
    """The questions of all exams about nothing that is erased, each once."""
    erased = {(exam.attribute, exam.value) for exam in exams}
    questions = {question.prompt: question for exam in exams for question in exam.retained}
    return [
        question
        for question in questions.values()
        if not erased & set(question.expected.items())
        and not any(mentions(question.prompt, exam.value) for exam in exams)  # CLIP's others may be erased, too
    ]


def examine(
    evaluator: Evaluator, concepts: Sequence[Concept], student: Student, bars: Bars, alone: Mapping[str, float | None]
) -> dict[str, Any]:
    """The verdict on the fused model, which is on inside `student()`, in the form of fused.json.

    alone: UA of each concept's own erasure, by name. A concept that the scorer does not know has passed: null.
    """
    exams = exams_of(evaluator, concepts)
    known = {name: exam for name, exam in exams.items() if exam}
    questions = retained_questions(list(known.values()))
    copies = evaluator.settings.retained_images_per_prompt
    before = evaluator.see(questions, copies, remembered=True) if questions else None
    with student():
        after = evaluator.see(questions, copies) if questions else None
        uas = {name: unlearned(evaluator, exam) for name, exam in known.items()}
    rows = [
        {
            "name": concept.name,
            "kind": concept.kind,
            "ua": uas.get(concept.name),
            "ua_alone": alone.get(concept.name),
            "passed": uas[concept.name] >= bars.ua if concept.name in uas else None,
        }
        for concept in concepts
    ]
    kept: list[dict[str, Any]] = []
    verdict: dict[str, Any] = {"bars": bars.model_dump(), "concepts": rows, "retained": kept, "degradation": None}
    if before and after:
        repeated = [question for question in questions for _ in range(copies)]
        kept += retained_rows(repeated, before.answers, after.answers, bars)
        verdict["degradation"] = (after.features - before.features).norm(dim=1).mean().item()
    verdict["passed"] = all(row["passed"] is not False for row in rows + kept)
    return verdict


def unlearned(evaluator: Evaluator, exam: Exam) -> float:
    """UA: the share of pictures for a concept in which it is not recognised."""
    seen = evaluator.see(exam.erased, evaluator.settings.images_per_prompt)
    return 1 - recognised(exam, seen.answers)


def retained_rows(questions: Sequence[Question], before: Any, after: Any, bars: Bars) -> list[dict[str, Any]]:
    """A row per attribute, and one for each of its values that fell below the bar."""
    rows = []
    for attribute in dict.fromkeys(key for question in questions for key in question.expected):
        values = dict.fromkeys(q.expected[attribute] for q in questions if attribute in q.expected)
        for value in (None, *values):
            chosen = [i for i, q in enumerate(questions) if asks(q, attribute, value)]
            asked = [questions[i] for i in chosen]
            base = share(hits(asked, [before[i] for i in chosen], only=attribute)) or 0.0
            fused = share(hits(asked, [after[i] for i in chosen], only=attribute)) or 0.0
            row = {"attribute": attribute, "value": value, "base": base, "fused": fused, "num_images": len(chosen)}
            passed = fused >= bars.retained * base
            if value is None:
                rows.append({**row, "passed": passed})
            elif not passed:
                rows.append({**row, "passed": None})  # listed; too few pictures for a judgement of its own
    return rows


def asks(question: Question, attribute: str, value: str | None) -> bool:
    return attribute in question.expected and value in (None, question.expected[attribute])


class Examination(EvaluationSettings):
    """How a fused model is examined: of hundreds of concepts, so with fewer pictures each than a single erasure."""

    num_prompts: int = Field(default=8, ge=1, description="prompts with each concept")
    retained_images_per_prompt: int = Field(default=1, ge=1, description="pictures of each prompt without any of them")
    solver: Literal["ddim", "dpm"] = Field(
        default="dpm", description="dpm (DPM-Solver++ 2M) needs about half the steps"
    )
    steps: int = Field(default=10, ge=1, description="sampling steps")
    scorer: ScorerSettings | None = Field(
        default=None, description="what looks at the pictures; null: what looked at the runs', or the base's own"
    )

    @field_validator("attacks")
    @classmethod
    def check(cls, value: tuple[AttackName, ...]) -> tuple[AttackName, ...]:
        if value:
            raise ValueError("attacks are made on single erasures, by advanchor erase, not on fused models")
        return value


class Gate:
    """Examines fusions of one base; what the base itself makes of the questions is remembered."""

    def __init__(self, base: Base, scorer: Scorer, settings: EvaluationSettings, bars: Bars) -> None:
        self.base, self.bars = base, bars
        self.evaluator = Evaluator(base, scorer, settings)

    def verdict(self, fusion: Fusion) -> dict[str, Any]:
        members = fusion.members.values()
        alone = {name: member.ua for name, member in fusion.members.items()}
        concepts = [member.concept for member in members]
        return examine(self.evaluator, concepts, lambda: fusion.on(self.base), self.bars, alone)


def make_gate(base: Base, members: Iterable[Member], settings: EvaluationSettings, bars: Bars) -> Gate | None:
    """Judges by the settings' scorer, else by that of the members' runs, else by the base's own.

    None where nothing can look at the pictures. Raises ModelError.
    """
    members = list(members)
    scorer = settings.scorer or scorer_of_runs(dict.fromkeys(member.run for member in members))
    settings = settings.model_copy(update={"scorer": scorer})
    found = scorer_for(base, settings, [member.concept for member in members])
    return Gate(base, found, settings, bars) if found else None


def scorer_of_runs(runs: Iterable[str]) -> ScorerSettings | None:
    """evaluate.scorer of the latest of these run directories whose plan has one."""
    plans = (Store(run).read_json("plan.json") for run in reversed(list(runs)))
    told = ((plan["spec"].get("evaluate") or {}).get("scorer") for plan in plans if plan)
    return next((ScorerSettings.model_validate(scorer) for scorer in told if scorer), None)


def failing(verdict: Mapping[str, Any]) -> list[str]:
    return [row["name"] for row in verdict["concepts"] if row["passed"] is False]


def shortfall(verdict: Mapping[str, Any]) -> tuple[int, float]:
    """How many rows fail, then how much UA is missing in all: less is better."""
    rows = [*verdict["concepts"], *verdict["retained"]]
    missing = sum(
        max(verdict["bars"]["ua"] - (row["ua"] or 0), 0) for row in verdict["concepts"] if row["passed"] is False
    )
    return sum(row["passed"] is False for row in rows), missing
