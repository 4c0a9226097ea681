"""The one training loop, and what it leaves behind."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advanchor.models.conditioning import Conditioning
from advanchor.training import losses
from advanchor.training.context import Batch, Context, Erasure, TrainingSettings
from advanchor.training.cost import Cost, predictions


@dataclass(frozen=True)
class Term:
    """A part of the student's loss: weight * MSE( eps(x_t, e), wanted )."""

    conditioning: Conditioning  # e, rows of (concepts, B)
    wanted: Tensor  # (concepts, B, C, h, w)
    weight: float = 1.0


def fit(
    context: Context,
    settings: TrainingSettings,
    batches: Iterable[Batch],
    target: Callable[[Batch], Tensor],  # a batch -> what the student is to predict for the concepts
    further: Callable[[Batch, Tensor], Sequence[Term]] = lambda batch, wanted: (),
) -> list[Erasure]:
    """Fine-tune the student, one step per batch, on each concept's

    L = MSE( eps(x_t, e_c), target ) + preserve_weight * MSE( eps(x_t, e_n), eps0(x_t, e_n) ) + further terms.

    The concepts' losses are summed, so that each gets the gradient that it would get alone.
    """
    loss = torch.zeros(len(context.concepts))
    context.base.rest()  # whoever encodes prompts step by step brings the text encoders back, and they stay
    for step, batch in enumerate(batches):
        wanted = target(batch)
        terms = [Term(context.e_c.rows(batch.templates), wanted)]
        if settings.preserve_weight:
            eps0_n = context.teacher_constants(batch, {"neutral": context.e_n})["neutral"]
            terms.append(Term(context.e_n.rows(batch.templates), eps0_n, settings.preserve_weight))
        terms += further(batch, wanted)
        with context.student():
            predicted = context.predict(batch, *(term.conditioning for term in terms))
        parts = [term.weight * losses.mse(eps, term.wanted) for eps, term in zip(predicted, terms, strict=True)]
        loss = torch.stack(parts).sum(0)
        context.engine.backward(loss.sum())
        context.engine.step()
        context.report("student", step + 1, settings.steps, float(loss.detach().mean()))
    final = context.engine.mean(loss.detach()).tolist()
    return erasures(context, settings.trained_weights, [{"student_loss": value} for value in final])


def fit_cost(settings: TrainingSettings, *, target: float, neutral_known: bool = False) -> Cost:
    """Cost of `fit` without further terms. target: how many of the teacher's predictions a batch's target needs.

    neutral_known: whether eps0(x_t, e_n) of every batch has been predicted before.
    """
    preserved = settings.preserve_weight > 0
    teacher = target + (preserved and not neutral_known)
    return predictions(settings.steps * settings.batch_size, teacher=teacher, learned=1 + preserved)


def erasures(context: Context, trained_weights: str, facts: Sequence[dict[str, float]] = ()) -> list[Erasure]:
    """What the engine now holds in each concept's slot, with what there is to say of each."""
    stacked = context.engine.export()
    return [
        Erasure({name: tensor[slot].clone() for name, tensor in stacked.items()}, trained_weights, facts=dict(own))
        for slot, own in enumerate(facts or [{}] * len(context.concepts))
    ]
