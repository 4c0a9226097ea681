"""Which scorer looks at a batch's pictures, as users write it: settings, and what is missing for them."""

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from advanchor.concepts import Concept
from advanchor.evaluation.exam import Scorer
from advanchor.evaluation.settings import EvaluationSettings, ScorerSettings, other_names
from advanchor.models import ModelError
from advanchor.models.base import Base
from advanchor.models.profile import profile_of
from advanchor.models.vocabulary import mentions

FEWEST = 2  # questions without the concept: distances between sets of pictures need two


def missing(settings: ScorerSettings, concepts: Sequence[Concept]) -> list[str]:
    """Everything that keeps a scorer from working here, "field: what" each."""
    from advanchor.evaluation.clip import resolve

    found = []
    try:
        resolve(settings.clip)
    except ModelError as error:
        found.append(f"clip: {error}")
    if settings.nudenet and find_spec("nudenet") is None:
        found.append("nudenet: the package is not installed: pip install 'advanchor[nudenet]'")
    for concept in concepts:
        plain = sum(not mentions(prompt, concept.name) for prompt in settings.retained)
        if plain + len(other_names(settings, concept)) * len(concept.templates) < FEWEST:
            found.append(
                f"retained: {concept.name!r} needs {FEWEST} prompts that do not mention it, of others.{concept.kind} "
                "or retained"
            )
    return found


def make_scorer(settings: ScorerSettings, concepts: Sequence[Concept], device: torch.device | str) -> Scorer:
    """Raises ModelError."""
    from advanchor.evaluation.clip import ClipScorer
    from advanchor.evaluation.nudenet import NudeNetScorer

    return (NudeNetScorer if settings.nudenet else ClipScorer)(settings, concepts, device)


def is_scored(base_digest: str, evaluate: EvaluationSettings) -> bool:
    """Whether anything can look at the pictures of the base with this digest."""
    return evaluate.scorer is not None or profile_of(base_digest).scorer is not None


def scorer_for(
    base: Base, evaluate: EvaluationSettings | None = None, concepts: Sequence[Concept] = ()
) -> Scorer | None:
    """What looks at a base's pictures; None where nothing can (is_scored). Raises ModelError."""
    if evaluate and evaluate.scorer:
        return make_scorer(evaluate.scorer, concepts, base.device)
    return base.profile.scorer(base.device) if base.profile.scorer else None
