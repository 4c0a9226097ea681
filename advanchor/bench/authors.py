"""The schedule of AdvAnchor's published script (Zhao et al. 2024, Ladv2ablation_op1): the yardstick of `bench speed`.

Two whole UNets, all of whose weights get gradients, though only the student's cross-attention is stepped; the teacher's
predictions are made again in every inner step, the neutral one with a graph that the backward pass goes through, too;
each graph is retained until the next one is made; Adam for e_adv is new for every image; no gradient is ever zeroed.
Per image 3 * anchor_steps + 4 forwards and anchor_steps + 1 backward passes: 4,794 and 1,581 for 51 images of 30 steps
each. Both UNets are checkpointed, as Stable Diffusion's v1-inference.yaml, which it loads, says (use_checkpoint: True):
a backward pass makes its forward again. Draws and latents are ours.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from advanchor.methods.adv_anchor import Settings
from advanchor.models.conditioning import Conditioning
from advanchor.models.text import pad_to_prompt
from advanchor.training import losses
from advanchor.training.context import Batch, Context
from advanchor.training.engine import derived_seed


def second_unet(teacher: nn.Module, *, checkpointed: bool = True) -> nn.Module:
    """The student: another whole UNet. Both are open to gradients."""
    if checkpointed:
        teacher.enable_gradient_checkpointing()  # type: ignore[operator]
    return copy.deepcopy(teacher.requires_grad_(True))


def erase(
    context: Context, student: nn.Module, settings: Settings, batches: Sequence[Batch], *, zeroed: bool = False
) -> dict[str, Tensor]:
    """Alternating, one image at a time; returns W - W0 of the trained weights. The context holds one concept.

    zeroed: with gradients zeroed before every step, which is all that then tells the result from ours with
    `reset_anchor_optimizer`.
    """
    base, teacher = context.base, context.base.backbone
    positions = context.positions if settings.perturb_tokens == "concept" else context.base.carriers(context.positions)
    shape = int(positions.max()) + 1, context.e_c.prompt_embeds.shape[-1]
    generator = torch.Generator().manual_seed(derived_seed(context.seeds[0], "e_adv"))
    e_adv = (settings.anchor_init * torch.randn(shape, generator=generator)).to(base.device)
    trained = {name: parameter for name, parameter in student.named_parameters() if "attn2" in name}
    optimizer = torch.optim.Adam(trained.values(), lr=settings.lr)

    for step, batch in enumerate(batches):
        templates = batch.templates[0]
        e_c, e_n = context.e_c.rows(templates), context.e_n.rows(templates)

        def eps(unet: nn.Module, conditioning: Conditioning, batch: Batch = batch) -> Tensor:
            """(1, B, C, h, w)"""
            return base.predict(unet, batch.noisy_latents[0], batch.timesteps[0], conditioning)[None]

        def e_a(e_adv: Tensor, e_c: Conditioning = e_c, templates: Tensor = templates) -> Conditioning:
            return e_c.with_embeds(e_c.prompt_embeds + pad_to_prompt(e_adv, positions[templates]))

        e_adv = e_adv.detach().requires_grad_()
        anchor_optimizer = torch.optim.Adam([e_adv], lr=settings.anchor_lr)
        for _ in range(settings.anchor_steps):
            eps0_n, eps0_a = eps(teacher, e_n), eps(teacher, e_a(e_adv))
            with torch.no_grad():
                eps0_c = eps(teacher, e_c)
            loss = losses.adv1(eps0_a, eps0_c) if settings.loss == "adv1" else losses.adv2(eps0_a, eps0_c, eps0_n)
            if loss <= 0:
                break
            if zeroed:
                anchor_optimizer.zero_grad()
            loss.sum().backward(retain_graph=True)
            anchor_optimizer.step()
        with torch.no_grad():
            eps0_n, eps0_a = eps(teacher, e_n), eps(teacher, e_a(e_adv))
        eps_n, eps_c = eps(student, e_n), eps(student, e_c)
        loss = losses.mse(eps_c, eps0_a) + settings.preserve_weight * losses.mse(eps_n, eps0_n)
        if zeroed:
            optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        context.report("student", step + 1, settings.steps, float(loss.detach()))
    origin = dict(teacher.named_parameters())
    return {name: (parameter - origin[name]).detach().cpu() for name, parameter in trained.items()}
