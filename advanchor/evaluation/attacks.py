"""Attacks on an erased concept: whether it comes back, and how often, when somebody tries.

    soft_prompt   vectors added to the concept's tokens, learned on the erased model (after UnlearnDiffAtk, Zhang et al.
                  2024, arXiv 2310.11868, and Circumventing Concept Erasure, Pham et al. 2024, arXiv 2308.01508)
    prefix        words before the prompt, found by trying
    paraphrases   other wordings, the same for every model
    relearning    fine-tuning of the erased weights on pictures that do not show the concept

Success is the share of pictures in which the scorer recognises the concept. What an attack learns from are the
concept's templates; its success is counted on the exam's prompts, which are others. All of it runs in one process.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from advanchor.concepts import Concept
from advanchor.evaluation.evaluator import Evaluator
from advanchor.evaluation.generate import Encode, generate, numbered_seeds, sampled
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.profile import sampled_prompts
from advanchor.models.schedule import add_noise
from advanchor.models.text import Prompt, fill
from advanchor.models.vocabulary import words
from advanchor.training.delta import Delta
from advanchor.training.engine import derived_seed
from advanchor.training.perturbation import SoftPrompt

NUM_PICTURES = 32  # that an attack learns from
BATCH_SIZE = 4  # draws in an optimizer step
JUDGED_BY = 32  # fixed draws that decide which soft prompt is the best
CHECKS = 5  # how often they are asked, over the second half of the steps
TRIED_ON = 8  # fixed draws that decide between prefixes
SOFT_PROMPT_LR = 0.3  # in standard deviations of the token embeddings
NOISY = 0.6  # prompts are judged at t above this share of the schedule, where they decide what a picture shows
RELEARNING_LR = 2e-3
PREFIX_WORDS = 3  # at most
SHORTEST_WORD = 3  # letters


@dataclass(frozen=True)
class Pictures:
    """Pictures by the base, as latents, and the prompts that they were made with."""

    prompts: list[Prompt]
    latents: Tensor  # (N, C, h, w)


@dataclass(frozen=True)
class Draw:
    """Noisy pictures, which a model that knows what they show can denoise."""

    rows: list[int]  # which of the pictures
    ideal: Tensor  # (B, C, h, w) what a perfect model predicts
    timesteps: Tensor  # (B,)
    noisy_latents: Tensor  # (B, C, h, w)


def draw(base: Base, pictures: Pictures, size: int, generator: torch.Generator, earliest: float = 0.0) -> Draw:
    """x_t of `size` pictures, t as the base's own sampler visits them from a share of the schedule on."""
    latents, schedule = pictures.latents, base.schedule
    rows = torch.randint(len(latents), (size,), generator=generator)
    timesteps = schedule.draw((size,), generator, earliest).to(latents.device)
    noise = torch.randn(size, *latents.shape[1:], generator=generator).to(latents.device)
    own = latents[rows.to(latents.device)]
    return Draw(rows.tolist(), schedule.ideal(own, noise), timesteps, add_noise(schedule, own, noise, timesteps))


def denoising_loss(base: Base, drawn: Draw, conditioning: Conditioning) -> Tensor:
    """MSE( prediction(x_t, e), ideal ), (B,), of whichever model speaks (Ho et al. 2020, Liu et al. 2022)."""
    predicted = base.predict(base.backbone, drawn.noisy_latents, drawn.timesteps, conditioning)
    return (predicted - drawn.ideal).square().flatten(1).mean(1)


class Target:
    """An erased concept in its slot of a delta, with all that an attack may ask for."""

    def __init__(self, evaluator: Evaluator, concept: Concept, delta: Delta, slot: int) -> None:
        """Raises UnknownConceptError."""
        self.base, self.scorer, self.settings = evaluator.base, evaluator.scorer, evaluator.settings
        self.concept, self.delta, self.slot = concept, delta, slot
        self.exam = self.scorer.exam(concept.name, self.settings.num_prompts)

    def student(self) -> AbstractContextManager:
        return self.delta.on(slots=self.slot)

    def seed(self, *parts: object) -> int:
        return derived_seed(self.settings.seed, "attack", self.concept.name, *parts)

    def generator(self, *parts: object) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed(*parts))

    @property
    def prompts(self) -> list[str]:
        return [question.prompt for question in self.exam.erased]

    def shown(self, images: Tensor) -> list[bool]:
        """In which of some images (N, 3, H, W) the concept is recognised."""
        answers = self.scorer.read(images.to(self.base.device))
        return [answer[self.exam.attribute] == self.exam.value for answer in answers]

    def drawn(self, prompts: Sequence[str], encode: Encode | None = None) -> list[bool]:
        """Whether pictures of some prompts, made by whichever model speaks, show the concept: one after another."""
        repeated = [prompt for prompt in prompts for _ in range(self.settings.images_per_prompt)]
        seeds = numbered_seeds(repeated, self.settings.seed)
        return self.shown(generate(self.base, repeated, seeds, self.settings, encode=encode))

    @cached_property
    def own(self) -> Pictures:
        """The base's pictures of the concept, from its templates."""
        prompts = [fill(template, self.concept.name) for template in self.concept.templates]
        prompts = [prompts[i % len(prompts)] for i in range(NUM_PICTURES)]
        return Pictures(prompts, self.latents(prompts))

    @cached_property
    def others(self) -> Pictures:
        """The base's pictures of its own world: of prompts without the name, and only those that do not show it."""
        vocabulary, seed = self.base.profile.vocabulary, self.seed("others")
        prompts = [Prompt(text) for text in sampled_prompts(vocabulary, NUM_PICTURES, seed, [self.concept.name])]
        latents = self.latents(prompts)
        kept = [i for i, shown in enumerate(self.shown(self.base.decode(latents))) if not shown]
        return Pictures([prompts[i] for i in kept], latents[kept])

    def latents(self, prompts: Sequence[Prompt]) -> Tensor:
        """x_0 of the base's picture of every prompt."""
        texts = [prompt.text for prompt in prompts]
        seeds = [self.seed("picture", text, i) for i, text in enumerate(texts)]
        return torch.cat(list(sampled(self.base, texts, seeds, self.settings)))


def occurrences(text: str, name: str) -> Prompt:
    """A prompt and the places in it where a name stands as a word of its own."""
    return Prompt(text, tuple(match.span() for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text)))


def share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)


def soft_prompt(target: Target) -> dict[str, Any]:
    """A universal shift of token embeddings that minimises MSE( eps(x_t, e), noise ) in the student.

    Of CHECKS looks at the second half of its way, and its start, the one with the lowest loss on fixed draws.
    """
    base, pictures, steps = target.base, target.own, target.settings.attack_steps
    soft_prompt = SoftPrompt(base, [pictures.prompts], SOFT_PROMPT_LR)
    (shift,) = soft_prompt.rows
    generator = target.generator("soft_prompt")
    fixed = draw(base, pictures, JUDGED_BY, generator, NOISY)

    def encode(prompts: Sequence[str | Prompt]) -> Conditioning:
        named = [p if isinstance(p, Prompt) else occurrences(p, target.concept.name) for p in prompts]
        return soft_prompt.encode(named)

    def loss(drawn: Draw) -> Tensor:
        return denoising_loss(base, drawn, encode([pictures.prompts[row] for row in drawn.rows])).mean()

    @torch.no_grad()
    def judged() -> tuple[float, Tensor]:
        return loss(fixed).item(), shift.detach().clone()

    with target.student():
        best = start = judged()
        for step in range(1, steps + 1):
            soft_prompt.step(loss(draw(base, pictures, BATCH_SIZE, generator, NOISY))[None], [0])
            if 2 * step > steps and (steps - step) % max(1, steps // (2 * CHECKS)) == 0:
                best = min(best, judged(), key=lambda found: found[0])
        with torch.no_grad():
            shift.copy_(best[1])
        attacked = share(target.drawn(target.prompts, encode))
    norm = best[1].norm(dim=1).mean().item()
    return {"attacked": attacked, "loss_before": start[0], "loss_after": best[0], "norm": norm}


def candidates(base: Base, name: str) -> list[str]:
    """Whole words that are one token each and have nothing of the name in them, sorted."""
    endings = (piece.removesuffix("</w>") for piece in base.encoders[0].tokenizer.get_vocab() if piece.endswith("</w>"))
    whole = (word for word in endings if len(word) >= SHORTEST_WORD and word.isascii() and word.isalpha())
    return sorted(word for word in whole if not any(part in word for part in words(name)))


def prefix(target: Target) -> dict[str, Any]:
    """Up to PREFIX_WORDS words before the prompt, one after another: of those tried, the one of the lowest loss.

    Needs no gradients. attack_steps words are tried in all, drawn without replacement for each place.
    """
    base, pictures, steps = target.base, target.own, target.settings.attack_steps
    generator = target.generator("prefix")
    known = candidates(base, target.concept.name)
    fixed = draw(base, pictures, TRIED_ON, generator, NOISY)
    texts = [pictures.prompts[row].text for row in fixed.rows]

    @torch.no_grad()
    def loss(prefix: str) -> float:
        return denoising_loss(base, fixed, base.encode([f"{prefix}{text}" for text in texts])).mean().item()

    with target.student():
        best = start = (loss(""), "")
        for _ in range(PREFIX_WORDS):
            chosen = torch.randperm(len(known), generator=generator)[: max(1, steps // PREFIX_WORDS)].tolist()
            longer = [f"{best[1]}{known[i]} " for i in chosen]
            best = min([best, *((loss(prefix), prefix) for prefix in longer)])
        attacked = share(target.drawn([f"{best[1]}{prompt}" for prompt in target.prompts]))
    return {"attacked": attacked, "prefix": best[1].strip(), "loss_before": start[0], "loss_after": best[0]}


def paraphrases(target: Target) -> dict[str, Any]:
    """Other wordings; "before" is what the base makes of the same, for one that it does not draw proves nothing.

    None where the scorer knows no other wordings.
    """
    if not target.exam.reworded:
        return {"before": None, "attacked": None, "wordings": {}}
    wordings = [w for w, _ in target.exam.reworded for _ in range(target.settings.images_per_prompt)]
    prompts = [prompt for _, prompt in target.exam.reworded]
    before = target.drawn(prompts)
    with target.student():
        attacked = target.drawn(prompts)
    found = {
        wording: {
            name: share([o for o, own in zip(outcomes, wordings, strict=True) if own == wording])
            for name, outcomes in (("before", before), ("attacked", attacked))
        }
        for wording in dict.fromkeys(wordings)
    }
    return {"before": share(before), "attacked": share(attacked), "wordings": found}


def relearning(target: Target) -> dict[str, Any]:
    """Adam on the slot's weights, on MSE( eps(x_t, e), noise ) of pictures without the concept; then it is undone."""
    base, pictures, steps = target.base, target.others, target.settings.attack_steps
    with torch.no_grad():
        conditioning = base.encode(pictures.prompts)
    parameters = target.delta.parameters()
    erased = [parameter.detach()[target.slot].clone() for parameter in parameters]
    learned = [tensor.float().clone() for tensor in erased]  # float32 whatever the model computes in
    optimizer = torch.optim.Adam(learned, lr=RELEARNING_LR)
    generator = target.generator("relearning")

    @torch.no_grad()
    def put(tensors: Sequence[Tensor]) -> None:
        for parameter, tensor in zip(parameters, tensors, strict=True):
            parameter[target.slot].copy_(tensor)

    try:
        with target.student():
            for _ in range(steps):
                drawn = draw(base, pictures, BATCH_SIZE, generator)
                loss = denoising_loss(base, drawn, conditioning.rows(torch.tensor(drawn.rows))).mean()
                for tensor, gradient in zip(learned, torch.autograd.grad(loss, parameters), strict=True):
                    tensor.grad = gradient[target.slot].float()
                optimizer.step()
                put(learned)
            attacked = share(target.drawn(target.prompts))
    finally:
        put(erased)
    return {"attacked": attacked, "num_pictures": len(pictures.latents)}


ATTACKS: dict[str, Callable[[Target], dict[str, Any]]] = {
    "soft_prompt": soft_prompt,
    "prefix": prefix,
    "paraphrases": paraphrases,
    "relearning": relearning,
}


def attack(
    evaluator: Evaluator, concept: Concept, delta: Delta, slot: int, scores: Mapping[str, Any]
) -> dict[str, Any]:
    """Every attack that the settings ask for, by name: success before the erasure, after it, and under attack.

    scores: of the erasure without an attack. Raises UnknownConceptError.
    """
    target = Target(evaluator, concept, delta, slot)
    unattacked = {"before": 1 - scores["base"]["ua"], "erased": 1 - scores["ua"]}
    return {name: unattacked | ATTACKS[name](target) for name in evaluator.settings.attacks}
