"""What keeps a batch from being run: everything that is wrong with it beside its form, found before work starts."""

from collections.abc import Sequence
from pathlib import Path

from advanchor import methods, models
from advanchor.batch import memory
from advanchor.batch.spec import BatchSpec
from advanchor.concepts import Concept
from advanchor.evaluation.scorers import missing
from advanchor.methods import for_base
from advanchor.models.encoders import TextEncoder
from advanchor.models.folders import trained_weights
from advanchor.models.naming import folders_of, parse
from advanchor.models.profile import GENERAL, built_in, profile_of
from advanchor.models.text import Prompt, PromptError, fill
from advanchor.training.context import TrainingSettings


def problems(spec: BatchSpec, concepts: Sequence[Concept], *, fetch: bool = True) -> list[str]:
    """Everything, "field: what" each; a field "concepts.3" is the fourth of `concepts`.

    fetch: look at models on the hub, too, which downloads them.
    """
    found, base_digest, profile = [], "", GENERAL
    if fetch or is_local(spec.base):
        try:
            place = models.place_of(spec.base)
            place.check()
            base_digest = place.digest
            profile = profile_of(base_digest)
            found += weight_problems(spec, concepts, trained_weights(place.folder))
            found += prompt_problems(place.folder, [concept.with_prompts(profile.prompts) for concept in concepts])
        except (OSError, RuntimeError, ValueError) as error:  # ModelErrors, and paths that no system can open
            found.append(f"model: {error}")
    scorer = spec.evaluate and spec.evaluate.scorer
    if scorer and (fetch or is_local(scorer.clip)):
        filled = [concept.with_prompts(profile.prompts) for concept in concepts]
        found += [f"evaluate.scorer.{problem}" for problem in missing(scorer, filled)]
    found += method_problems(spec, concepts)
    if base_digest and not found and (problem := memory.problem(spec, concepts)):
        found.append(f"resources: {problem}")
    if base_digest and (problem := attack_problem(spec, base_digest)):
        found.append(f"evaluate.attacks: {problem}")
    return list(dict.fromkeys(found))


def is_local(model: str) -> bool:
    """Whether a base can be looked at without the hub."""
    try:
        return all(name in built_in() or Path(name).expanduser().is_dir() for name in folders_of(parse(model)))
    except (OSError, RuntimeError, ValueError):
        return False


def weight_problems(spec: BatchSpec, concepts: Sequence[Concept], choices: Sequence[str]) -> list[str]:
    """Methods that ask for weights which the base does not have."""
    found = []
    for kind in dict.fromkeys(concept.kind for concept in concepts):
        try:
            for_base(spec.method_for(kind), choices)
        except ValueError as error:
            found.append(f"method.{error}")
    return found


def prompt_problems(folder: Path, concepts: Sequence[Concept]) -> list[str]:
    """Prompts in which a tokenizer of the base's does not find the concept whole: they are too long, or glue it."""
    encoders, found = models.encoders(folder), []
    for number, concept in enumerate(concepts):
        prompts = [fill(template, concept.name) for template in concept.templates]
        if together := prompt_problem(encoders, prompts):
            each = [problem for prompt in prompts if (problem := prompt_problem(encoders, [prompt]))]
            found += [f"concepts.{number}: {problem}" for problem in each or [together]]
    return found


def prompt_problem(encoders: Sequence[TextEncoder], prompts: Sequence[Prompt]) -> str:
    """Of the first tokenizer that has one, named where it is not the only one."""
    for encoder in encoders:
        try:
            encoder.positions(prompts)
        except PromptError as error:
            return f"{encoder.part}: {error}" if len(encoders) > 1 else str(error)
    return ""


def method_problems(spec: BatchSpec, concepts: Sequence[Concept]) -> list[str]:
    """What is wrong with the methods for these concepts, and with all methods in one run."""
    used = {concept.kind: spec.method_for(concept.kind) for concept in concepts}
    found = [f"method.{problem}" for c in concepts for problem in methods.problems(used[c.kind], c)]
    if len(trained := {method.trained_weights for method in used.values()}) > 1:
        found.append(f"method_by_kind: one run trains one set of weights, not {' and '.join(sorted(trained))}")
    ranks = spec.resources.ranks
    sizes = {method.batch_size for method in used.values() if isinstance(method, TrainingSettings)}
    if uneven := sorted(size for size in sizes if size % ranks):
        found.append(f"method.batch_size: {uneven[0]} does not divide by the {ranks} ranks of gpus_per_task")
    return found


def attack_problem(spec: BatchSpec, base_digest: str) -> str:
    """Why this batch's erasures cannot be attacked, naming the setting; empty if they can, or need not."""
    if not (spec.evaluate and spec.evaluate.attacks):
        return ""
    if profile_of(base_digest).scorer is None or spec.evaluate.scorer:
        return f"only the scorers of {', '.join(built_in())} know how to ask; not {spec.base!r} or evaluate.scorer"
    if spec.resources.ranks > 1:
        return f"attacks need whole weights in one process, not resources.gpus_per_task: {spec.resources.ranks}"
    if spec.deepspeed.stage == 3:
        return "attacks need whole weights in one process, not deepspeed.stage: 3"
    return ""
