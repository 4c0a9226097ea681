"""Our esd and uce against their authors' rules, written as in their scripts, on the bare name that they run with."""

import copy

import pytest
import torch
from torch import Tensor

from advanchor import methods
from advanchor.concepts import Concept
from advanchor.methods import esd, uce
from advanchor.models.base import Base
from advanchor.studies.rivals import bare
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

NAMES = [("Mira Vos", "identity"), ("star", "object")]
READERS = ("attn2.to_k.weight", "attn2.to_v.weight")


def bare_concept(name: str, kind: str) -> Concept:
    return bare(Concept(name=name, kind=kind, templates=("a red {}",), neutral=("a red shape",)))  # type: ignore[arg-type]


def embeddings(base: Base, prompt: str) -> tuple[Tensor, int]:
    """(L, D) by the stock text encoder, and where the prompt's last token stands."""
    pipeline = base.pipeline
    tokens = pipeline.tokenizer(prompt, padding="max_length", return_tensors="pt", truncation=True)
    with torch.no_grad():
        return pipeline.text_encoder(tokens.input_ids)[0][0], int(tokens.attention_mask.sum()) - 2


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_uce_is_the_published_edit(base: Base, name: str, kind: str) -> None:
    """mat1 = l W0 + W0 c_guide c^T, mat2 = l I + c c^T, W = mat1 mat2^-1 of each key and value."""
    concept = bare_concept(name, kind)
    (c, at), (guide, guide_at) = embeddings(base, name), embeddings(base, concept.neutral[0])
    c, guide = c[at, :, None].double(), guide[guide_at, :, None].double()
    readers = {k: v for k, v in base.backbone.named_parameters() if k.endswith(READERS)}
    found = uce.joint_edit(base, [concept], uce.Settings(), readers)
    assert found.keys() == readers.keys()
    for key, weight in readers.items():
        w0 = weight.detach().double()
        mat1, mat2 = 0.5 * w0 + w0 @ guide @ c.T, 0.5 * torch.eye(len(c), dtype=torch.float64) + c @ c.T
        torch.testing.assert_close(found[key].double(), mat1 @ torch.inverse(mat2) - w0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_a_step_of_esd_is_the_published_step(base: Base, name: str, kind: str) -> None:
    """loss = MSE( student(x_t, c), eps0(x_t, "") - eta (eps0(x_t, c) - eps0(x_t, "")) ), one step of Adam."""
    settings = esd.Settings(steps=1, lr=1e-3, batch_size=2, partial_steps=3, eta=2.0)
    student = copy.deepcopy(base.pipeline.unet).requires_grad_(True)
    delta = Delta(base.backbone, "cross_attention_kv")
    context = Context(
        base, TorchEngine(base.backbone, delta.named_parameters()), delta, [bare_concept(name, kind)], [0]
    )
    context.engine.reset(settings.lr)
    batch = esd.sample_partly(context, settings, 0)
    (erasure,) = methods.erase(context, settings)
    delta.detach()
    x_t, t = batch.noisy_latents[0], batch.timesteps[0]
    (c, _), (null, _) = embeddings(base, name), embeddings(base, "")
    c, null = c.expand(len(x_t), -1, -1), null.expand(len(x_t), -1, -1)
    with torch.no_grad():
        eps_c, eps_null = (student(x_t, t, encoder_hidden_states=e).sample for e in (c, null))
    trained = {key: value for key, value in student.named_parameters() if key.endswith(READERS)}
    before = {key: value.detach().clone() for key, value in trained.items()}
    optimizer = torch.optim.Adam(trained.values(), lr=settings.lr)
    loss = torch.nn.functional.mse_loss(
        student(x_t, t, encoder_hidden_states=c).sample, eps_null - settings.eta * (eps_c - eps_null)
    )
    loss.backward()
    optimizer.step()
    assert erasure.delta.keys() == trained.keys()
    for key, value in trained.items():  # Adam's first step is nearly the gradient's sign: tiny gradients may differ
        moved = value.detach() - before[key]
        assert (erasure.delta[key] - moved).abs().mean() < 0.01 * moved.abs().mean()
