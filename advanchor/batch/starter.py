"""A first batch for a list of concepts: complete, commented, with the method that the README recommends."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from advanchor.batch.plan import slug
from advanchor.batch.problems import is_local
from advanchor.batch.schema import SCHEMA_FILE
from advanchor.batch.yaml_lines import Loader
from advanchor.concepts import Concept
from advanchor.messages import shown
from advanchor.models import resolve
from advanchor.models.digests import folder_digest
from advanchor.models.folders import pipeline_class
from advanchor.models.profile import GENERAL, profile_of

CLIP = "openai/clip-vit-large-patch14"
MOST_OTHERS = 12  # concepts of a kind that CLIP tells each picture from
HUB: dict[str, str] = {  # the bases of configs/: pipeline classes that need no download to be known
    "CompVis/stable-diffusion-v1-4": "StableDiffusionPipeline",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "StableDiffusionPipeline",
    "stabilityai/stable-diffusion-2-1": "StableDiffusionPipeline",
    "stabilityai/stable-diffusion-xl-base-1.0": "StableDiffusionXLPipeline",
    "stabilityai/stable-diffusion-3.5-medium": "StableDiffusion3Pipeline",
    "black-forest-labs/FLUX.1-dev": "FluxPipeline",
}
SAMPLED: dict[str, tuple[int, float]] = {  # steps and guidance of the pictures that a concept is learned from
    "StableDiffusionPipeline": (30, 7.5),
    "StableDiffusionXLPipeline": (30, 5.0),
    "StableDiffusion3Pipeline": (28, 4.5),
    "FluxPipeline": (28, 3.5),
}
KEPT = (  # everyday pictures that are to stay as they are
    "a photo of a street at night", "a bowl of fruit on a table", "two children on a beach",
    "a red car in front of a house", "a landscape with mountains", "a dog in the snow",
)  # fmt: skip


class Dumper(yaml.SafeDumper):
    """Writes what yaml_lines.Loader reads back: a name such as 1e5 in quotes."""


Dumper.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def flow(value: object) -> str:
    """A value on one line."""
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


@dataclass(frozen=True)
class Starter:
    """What a first batch is made of."""

    model: str
    concepts: Sequence[Concept]
    clip: str = CLIP  # scores the pictures of bases without a scorer of their own; empty: nothing does

    def pipeline(self) -> str:
        """The base's pipeline class; empty if it is not known without a download. Raises ModelError."""
        name = self.model.partition("@")[0]
        if is_local(self.model) or name.count("/") != 1 or self.model.startswith((".", "/", "~")):
            return pipeline_class(resolve(self.model))
        return HUB.get(name, "")

    def is_gallery(self) -> bool:
        return is_local(self.model) and profile_of(folder_digest(resolve(self.model))) is not GENERAL


def text(starter: Starter, source: str, path: Path) -> str:
    """The batch for `path`; `source` says where its concepts come from. Raises ModelError."""
    kinds = Counter(concept.kind for concept in starter.concepts)
    counts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    gallery, file = starter.is_gallery(), shown(path.name)
    parts = [
        f"# yaml-language-server: $schema={schema_reference(path)}",
        f"# {len(starter.concepts)} concepts ({counts}), from {shown(source)} by advanchor init.",
        f"#   advanchor check {file}              doubles, aliases, names that the model reads alike",
        f"#   advanchor plan {file}               what would run, and what it would cost",
        f"#   advanchor erase {file} --only 3     the first three; look at their pictures before the others",
        f"#   advanchor erase {file}              all of them; what is done is skipped",
        "",
        f"model: {flow(starter.model)}",
        f"output: {flow(f'runs/{slug(path.stem)}')}",
        "seed: 0                      # decides every random draw",
        "",
        *(gallery_method(kinds) if gallery else method(starter.pipeline())),
        "",
        *(gallery_evaluation() if gallery else evaluation(starter)),
        "",
        *(gallery_resources() if gallery else resources(starter.pipeline())),
        "",
        "concepts:                    # prompts come from the kind unless a concept has templates of its own",
        *(f"  - {flow(fields(concept))}" for concept in starter.concepts),
    ]
    return "\n".join(parts) + "\n"


def schema_reference(path: Path) -> str:
    """Where an editor finds the schema: beside the batch if the program is installed below it, else as a file's URL."""
    folder = path.resolve().parent
    if SCHEMA_FILE.is_relative_to(folder):
        return os.path.relpath(SCHEMA_FILE, folder)
    return SCHEMA_FILE.as_uri()


def fields(concept: Concept) -> Mapping[str, object]:
    return concept.model_dump(mode="json", exclude_defaults=True)


METHOD = (
    "method:",
    "  name: guarded_anchor       # recommended: the rest of the model stays intact, and erasures fuse into one model",
)


def gallery_method(kinds: Mapping[str, int]) -> list[str]:
    """As configs/gallery-mixed.yaml has it."""
    own = {"style": "{lr: 2.0e-3}", "object": "{beyond: 2}", "explicit": "{beyond: 2}"}
    found = [
        *METHOD,
        "  steps: 70                  # of the student",
        "  anchor_steps: 5            # of the adversarial search; 0 turns it off",
        "  lr: 7.0e-4                 # too low: the concept comes back; too high: other pictures change",
        "  anchor_lr: 3.0e-3",
        "  batch_size: 4",
        "  num_latents: 32            # pictures of each concept, sampled by the base",
    ]
    rows = [f"  {kind}: {settings}" for kind, settings in own.items() if kind in kinds]
    return [*found, *(["", "method_by_kind:              # settings that differ for a kind", *rows] if rows else [])]


def method(pipeline: str) -> list[str]:
    """As configs/sdxl.yaml and its neighbours have it."""
    steps, guidance = SAMPLED.get(pipeline, (30, 5.0))
    readers = pipeline in SAMPLED and pipeline != "StableDiffusionPipeline"
    return [
        "# A place to start from, not a result: this project has not run these weights. Look at the first three, then",
        "# raise lr where a concept comes back, and lower it where other pictures change.",
        *METHOD,
        *(["  trained_weights: readers   # what reads the prompt"] if readers else []),
        "  steps: 100                 # of the student",
        "  anchor_steps: 10           # of the adversarial search; 0 turns it off",
        "  lr: 2.0e-5",
        "  anchor_lr: 1.0e-3",
        "  batch_size: 4",
        "  retain_prompts: 500        # everyday prompts that keep their meaning",
        "  num_latents: 16            # pictures of each concept, sampled by the base",
        f"  latent_steps: {steps}",
        f"  latent_guidance: {guidance}",
    ]


def gallery_evaluation() -> list[str]:
    return [
        "evaluate:                    # on prompts that no concept is erased with; null: not at all",
        "  num_prompts: 8",
        "  images_per_prompt: 4",
        "  retained_images_per_prompt: 1",
        "  solver: dpm",
        "  steps: 10",
    ]


def evaluation(starter: Starter) -> list[str]:
    """CLIP tells a concept from the others of its kind, which are to stay."""
    if not starter.clip:
        return ["evaluate: null               # nothing looks at the pictures: advanchor init --clip writes what could"]
    others: dict[str, list[str]] = {}
    for concept in starter.concepts:
        names = others.setdefault(concept.kind, [])
        names += [concept.name] * (len(names) < MOST_OTHERS)
    _, guidance = SAMPLED.get(starter.pipeline(), (30, 5.0))
    return [
        "evaluate:                    # on prompts that no concept is erased with; null: not at all",
        "  num_prompts: 20",
        "  images_per_prompt: 2",
        "  solver: dpm",
        "  steps: 20",
        f"  guidance: {guidance}",
        "  scorer:",
        f"    clip: {flow(starter.clip)}     # a CLIPModel: a folder or a hub id",
        "    others:                  # what pictures of a kind are told from; best are names that are not erased",
        *(f"      {kind}: {flow(names)}" for kind, names in others.items()),
        "    retained:                # pictures that are to stay",
        *(f"      - {prompt}" for prompt in KEPT),
        *(["    # nudenet: true          # explicit concepts by a detector: pip install 'advanchor[nudenet]'"]
          if "explicit" in others else []),
    ]  # fmt: skip


def gallery_resources() -> list[str]:
    return ["resources:", "  max_attempts: 3", "  deadline_s: 600            # of one attempt"]


def resources(pipeline: str) -> list[str]:
    large = pipeline in SAMPLED and pipeline != "StableDiffusionPipeline"
    precision = "{stage: 2, precision: bf16}" if large else "{stage: 1, precision: fp32}"
    return [
        "resources:",
        "  gpus_per_task: 1           # one concept on each GPU; gangs: auto takes as many as there are",
        "  max_attempts: 3",
        "  deadline_s: 3600           # of one attempt",
        "",
        f"deepspeed: {precision}",
    ]
