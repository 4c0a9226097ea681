"""age against its authors' rule: what a mixture is, what moves it, and what the student learns."""

import torch
from torch import Tensor

import advanchor
from advanchor.concepts import Concept
from advanchor.methods import age
from advanchor.models.base import Base
from advanchor.models.text import fill
from advanchor.training.context import Batch, Context
from advanchor.training.engine import derived_seed

NAMES = ("star", "circle", "portrait")
SETTINGS = age.Settings(
    steps=1, batch_size=2, num_latents=2, latent_steps=2, candidates=NAMES, top=2, search_lr=0.1, lr=1e-3
)


def one_batch(context: Context) -> Batch:
    (batch,) = context.batches(SETTINGS, context.latents(SETTINGS))
    return batch


def pi(logits: Tensor, generator: torch.Generator) -> Tensor:
    """The rule, written out: the two largest of softmax( (z - log(-log u)) / 2 ), rescaled."""
    u = torch.rand(len(logits), generator=generator)
    shares = torch.softmax((logits - torch.log(-torch.log(u))) / 2, 0)
    shares = shares * (shares > shares.min())
    return shares / shares.sum()


def embeddings(context: Context, batch: Batch) -> Tensor:
    """(names, B, L, D): every candidate in the templates of the batch."""
    templates = [context.concepts[0].templates[i] for i in batch.templates[0].tolist()]
    return torch.stack([context.base.encode([fill(t, name) for t in templates]).prompt_embeds for name in NAMES])


def test_an_anchor_is_a_mixture_of_candidates(context: Context) -> None:
    mixture, batch = age.Mixture(context, SETTINGS), one_batch(context)
    expected = pi(torch.full((3,), 1 / 3), torch.Generator().manual_seed(derived_seed(0, "gumbel")))
    found = mixture.draw(batch.templates).prompt_embeds[0]
    torch.testing.assert_close(found, (expected[:, None, None, None] * embeddings(context, batch)).sum(0))
    assert expected.count_nonzero() == 2


def test_the_search_goes_to_what_the_student_has_changed_most(context: Context) -> None:
    """Adam's first step moves z by its rate, up the gradient of MSE( eps(x_t, e_a), eps0(x_t, e_a) )."""
    mixture, batch = age.Mixture(context, SETTINGS), one_batch(context)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in context.delta.named_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    mixture.search(batch)
    z = torch.full((3,), 1 / 3, requires_grad=True)
    own = embeddings(context, batch)
    e_a = (pi(z, torch.Generator().manual_seed(derived_seed(0, "gumbel")))[:, None, None, None] * own).sum(0)
    unet, x_t, t = context.base.backbone, batch.noisy_latents[0], batch.timesteps[0]
    with torch.no_grad():
        eps0 = unet(x_t, t, encoder_hidden_states=e_a).sample
    with context.student():
        (eps,) = context.predict(batch, batch_of(context, e_a))
    (eps - eps0).square().mean().backward()
    assert z.grad is not None and z.grad.abs().max() > 1e-6
    ways = z.grad.sign() * (z.grad.abs() > 1e-3 * z.grad.abs().max())  # what is not mixed in has rounding errors
    moved = mixture.logits[0].detach() - 1 / 3
    torch.testing.assert_close(moved, 0.1 * ways, atol=1e-3, rtol=0)


def batch_of(context: Context, e: Tensor):  # noqa: ANN201 (a Conditioning)
    return context.e_c.rows(torch.zeros(1, len(e), dtype=torch.long)).with_embeds(e[None])


def test_the_mixture_is_kept_from_the_second_step_on(base: Base, concept: Concept) -> None:
    """In the first step the student is the teacher, and there is nothing to keep; later the term has a gradient."""
    found = {}
    for steps in (1, 3):
        for weight in (0.0, 5.0):
            settings = SETTINGS.model_copy(update={"steps": steps, "kept_weight": weight, "search_steps": 0})
            delta = advanchor.erase(base.pipeline, concept, settings).erasure.delta
            found[steps, weight] = torch.cat([own.flatten() for own in delta.values()])
    assert (found[1, 0.0] - found[1, 5.0]).abs().mean() < 0.1 * (found[3, 0.0] - found[3, 5.0]).abs().mean()


def test_the_student_learns_the_mixture(context: Context) -> None:
    """target = eps0(x_t, e_a)."""
    mixture, batch = age.Mixture(context, SETTINGS), one_batch(context)
    wanted = mixture.target(batch)
    unet, x_t, t = context.base.backbone, batch.noisy_latents[0], batch.timesteps[0]
    with torch.no_grad():
        eps0 = unet(x_t, t, encoder_hidden_states=mixture.e_a.prompt_embeds[0]).sample
    torch.testing.assert_close(wanted[0], eps0)


def test_without_names_it_mixes_prompts_that_do_not_mention_the_concept(context: Context) -> None:
    settings = SETTINGS.model_copy(update={"candidates": (), "candidate_prompts": 6})
    (own,) = age.Mixture(context, settings).candidates
    assert 2 <= len(own) <= 6 and all(len(one) == len(context.prompts) for one in own)


def test_one_name_is_not_enough() -> None:
    concept = Concept(name="star", kind="object", templates=("a {}",), neutral=("a shape",))
    settings = SETTINGS.model_copy(update={"candidates": ("star", "circle")})
    assert age.problems(settings, concept) == ["candidates: two or more other names are needed"]
    assert not age.problems(SETTINGS, concept)
