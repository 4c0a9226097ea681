"""What trained methods share: the draws of one erasure, the teacher's predictions, and the one training loop."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from advanchor import losses
from advanchor.concepts import Concept
from advanchor.delta import Delta
from advanchor.diffusion import Conditioning, add_noise, initial_noise, join, predict_noise, sample_latents
from advanchor.engine import Engine, derived_seed, shard
from advanchor.models.base import Base
from advanchor.text import Prompt, fill


class TrainingSettings(BaseModel):
    """Settings of every method that fine-tunes the student."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_weights: Literal["cross_attention", "cross_attention_kv"] = Field(
        default="cross_attention_kv", description="which weights learn; only the kv ones can be fused in closed form"
    )
    steps: int = Field(default=50, ge=1, description="optimizer steps of the student, one batch each")
    lr: float = Field(default=1e-5, gt=0, description="learning rate of the student (Adam)")
    batch_size: int = Field(default=4, ge=1, description="draws of (image, noise, timestep, template) in a batch")
    preserve_weight: float = Field(default=10.0, ge=0, description="weight of the neutral prompt's term in the loss")
    redraw: bool = Field(
        default=False, description="draw the batches afresh at every sweep, as the authors' scripts do"
    )
    num_latents: int = Field(default=64, ge=1, description="images of the concept sampled from the teacher, as latents")
    latent_prompts: Literal["templates", "concept"] = Field(default="templates", description="prompts of those images")
    latent_steps: int = Field(default=20, ge=1, description="sampling steps of those images")
    latent_guidance: float = Field(default=3.0, ge=0, description="their classifier-free guidance scale")


@dataclass
class Erasure:
    """What a method leaves behind."""

    delta: dict[str, Tensor]  # dW and db by the name of the base's tensor, float32 on the CPU
    trained_weights: str
    e_adv: Tensor | None = None  # (rows, D), float32 on the CPU; of adv_anchor only
    facts: dict[str, float] = field(default_factory=dict)  # what the method has to say of itself: norms, last losses


@dataclass
class Batch:
    """This rank's rows of one global draw, and the teacher's predictions that stay the same for it."""

    noisy_latents: Tensor  # (B, C, h, w)
    timesteps: Tensor  # (B,)
    templates: Tensor  # (B,) which template each row uses
    constants: dict[str, Tensor] = field(default_factory=dict)  # prompt set -> eps0 (B, C, h, w)


Report = Callable[[str, int, int, float], None]  # phase, step, of how many, loss; may raise to stop the task


def ignore(phase: str, step: int, total: int, loss: float) -> None: ...


class Context:
    """One concept on one engine: everything a method may ask for. The delta is off unless a call says student."""

    def __init__(
        self, base: Base, engine: Engine, delta: Delta, concept: Concept, seed: int, report: Report = ignore
    ) -> None:
        self.base, self.engine, self.delta, self.concept, self.seed = base, engine, delta, concept, seed
        self.report = report
        self.prompts: list[Prompt] = [fill(template, concept.name) for template in concept.templates]
        self.positions = base.concept_tokens(self.prompts)  # (templates, L)
        with torch.no_grad():
            self.e_c = base.encode(self.prompts)  # row i: template i
            self.e_n = base.encode(concept.neutral)
            self.null = base.encode([""])

    def latents(self, settings: TrainingSettings) -> Tensor:
        """x_0 (num_latents, C, h, w): images of the concept by the teacher; each rank samples its share."""
        prompts = self.prompts if settings.latent_prompts == "templates" else [Prompt(self.concept.name)]
        with torch.no_grad():
            known = self.base.encode(prompts)
        world = self.engine.world_size
        padded = -(-settings.num_latents // world) * world
        mine = torch.arange(padded)[shard(padded, self.engine.rank, world)]
        seeds = [derived_seed(self.seed, "latent", i) for i in mine.tolist()]
        parts = []
        for chunk, chunk_seeds in zip(mine.split(64), torch.tensor(seeds).split(64), strict=True):
            sampled = sample_latents(
                self.engine.module,
                self.base.scheduler_config,
                initial_noise(self.base.latent_shape, chunk_seeds.tolist()).to(self.base.device),
                known.rows((chunk % len(known)).to(self.base.device)),
                self.null,
                num_steps=settings.latent_steps,
                guidance=settings.latent_guidance,
                solver="dpm",
            )
            parts.append(sampled)
        return self.engine.gather(torch.cat(parts))[: settings.num_latents]

    def batches(self, settings: TrainingSettings, latents: Tensor, sweep: int = 0) -> list[Batch]:
        """The draws of one sweep, one per student step: t uniform; the same global plan on every number of ranks."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "batches", sweep))
        mine = shard(settings.batch_size, self.engine.rank, self.engine.world_size)
        drawn = []
        for _ in range(settings.steps):
            size = (settings.batch_size,)
            images = torch.randint(len(latents), size, generator=generator)[mine].to(latents.device)
            timesteps = torch.randint(self.base.schedule.num_train_timesteps, size, generator=generator)[mine]
            templates = torch.randint(len(self.prompts), size, generator=generator)[mine].to(latents.device)
            noise = torch.randn(*size, *latents.shape[1:], generator=generator)[mine].to(latents.device)
            timesteps = timesteps.to(latents.device)
            noisy = add_noise(self.base.schedule, latents[images], noise, timesteps)
            drawn.append(Batch(noisy, timesteps, templates))
        return drawn

    def predict(self, batch: Batch, conditioning: Conditioning) -> Tensor:
        """eps(x_t, conditioning); several rows of conditioning per row of the batch are one forward, stacked."""
        copies = len(conditioning) // len(batch.timesteps)
        noisy, timesteps = batch.noisy_latents.repeat(copies, 1, 1, 1), batch.timesteps.repeat(copies)
        return predict_noise(self.engine.module, self.base.schedule, noisy, timesteps, conditioning)

    @torch.no_grad()
    def teacher_constants(self, batch: Batch, prompt_sets: dict[str, Conditioning]) -> dict[str, Tensor]:
        """eps0 of a batch for sets of prompts (one row per template), predicted once, in one forward."""
        missing = [name for name in prompt_sets if name not in batch.constants]
        if missing:
            joined = join(*(prompt_sets[name].rows(batch.templates) for name in missing))
            batch.constants |= zip(missing, self.predict(batch, joined).chunk(len(missing)), strict=True)
        return batch.constants


def fit(
    context: Context,
    settings: TrainingSettings,
    batches: Iterable[Batch],
    target: Callable[[Batch], Tensor],  # a batch -> what the student is to predict for the concept
) -> Erasure:
    """Fine-tune the student, one step per batch, on

    L = MSE( eps(x_t, e_c), target ) + preserve_weight * MSE( eps(x_t, e_n), eps0(x_t, e_n) ).
    """
    loss = torch.zeros(())
    for step, batch in enumerate(batches):
        wanted = target(batch)
        if settings.preserve_weight:
            eps0_n = context.teacher_constants(batch, {"neutral": context.e_n})["neutral"]
            both = join(context.e_c.rows(batch.templates), context.e_n.rows(batch.templates))
            with context.delta.on():
                eps_c, eps_n = context.predict(batch, both).chunk(2)
            loss = losses.erase(eps_c, wanted) + settings.preserve_weight * losses.preserve(eps_n, eps0_n)
        else:
            with context.delta.on():
                loss = losses.erase(context.predict(batch, context.e_c.rows(batch.templates)), wanted)
        context.engine.backward(loss)
        context.engine.step()
        context.report("student", step + 1, settings.steps, float(loss.detach()))
    final = float(context.engine.mean(loss.detach()))
    return Erasure(context.engine.export(), settings.trained_weights, facts={"student_loss": final})
