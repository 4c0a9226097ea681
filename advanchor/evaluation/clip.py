"""A scorer for bases without a classifier: zero-shot recognition by CLIP (Radford et al. 2021, arXiv 2103.00020).

    p(picture) = f(picture) / |f(picture)|,   t(class) = mean of g(prompt) / |g(prompt)| over a class's prompts
    seen = argmax_class <p, t(class)>

The classes of a concept are the concept itself, its neutral prompts and the other concepts of its kind that the
settings list. Each concept has an attribute of its own, its name; an answer is a class, None for neutral. Retained
prompts have the attribute "prompt", answered by the retained prompt that fits best: text-to-image retrieval.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from advanchor.concepts import Concept
from advanchor.evaluation.exam import Answers, Exam, Question, UnknownConceptError
from advanchor.evaluation.settings import FORMS, ScorerSettings, other_names
from advanchor.models import ModelError
from advanchor.models.text import fill
from advanchor.models.vocabulary import MEDIA, PLACES, THINGS, mentions

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training pictures
PROMPT = "prompt"  # the attribute of retained prompts
WANTED = ("config.json", "*.safetensors", "tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json")


def resolve(name: str) -> Path:
    """The local folder of a CLIPModel; a hub id[@revision] is fetched, in safetensors only. Raises ModelError."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise ModelError(f"{name!r} is neither a folder nor a hub id (owner/name[@revision])")
        from huggingface_hub import snapshot_download

        repository, _, revision = name.partition("@")
        try:
            folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(WANTED)))
        except Exception as error:
            raise ModelError(f"{name!r} could not be fetched from the hub: {error}") from error
    config = folder / "config.json"
    kind = json.loads(config.read_text()).get("model_type") if config.is_file() else None
    if kind != "clip":
        raise ModelError(f"{folder} is no CLIPModel: its config.json {f'says {kind}' if kind else 'is missing'}")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} has no *.safetensors; pickled weights are never loaded")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise ModelError(f"{folder} has no tokenizer.json or vocab.json")
    return folder


def exam_prompts(concept: Concept, forms: Sequence[str], num_prompts: int) -> list[str]:
    """Different prompts with the concept, none of which it is erased with; fewer where the forms allow no more."""
    own = {fill(template, concept.name).text for template in concept.templates}
    filled = (written(forms[i % len(forms)], concept.name, i) for i in islice(count(), 8 * num_prompts))
    return [prompt for prompt in dict.fromkeys(filled) if prompt not in own][:num_prompts]


def written(form: str, name: str, number: int) -> str:
    """A form with its slots filled: {} the concept, {medium}, {thing} and {place} as the number chooses."""
    words = {"{medium}": MEDIA, "{thing}": THINGS, "{place}": PLACES}
    for slot, choices in words.items():
        form = form.replace(slot, choices[number % len(choices)])
    return fill(form, name).text.strip()


class ClipScorer:
    """Knows the concepts that it is made for; texts are embedded once."""

    def __init__(
        self, settings: ScorerSettings, concepts: Sequence[Concept], device: torch.device | str = "cpu"
    ) -> None:
        folder = resolve(settings.clip)
        self.settings, self.concepts = settings, {concept.name: concept for concept in concepts}
        self.model: Any = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        self.model.eval().requires_grad_(False).to(device)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        self.classes = {concept.name: self.classes_of(concept) for concept in concepts}
        self.retained = self.texts(settings.retained) if settings.retained else None  # (prompts, F)

    def classes_of(self, concept: Concept) -> tuple[list[str | None], Tensor]:
        """The names of the classes, None for neutral, and their t, (classes, F)."""
        others = other_names(self.settings, concept)
        prompts: list[Sequence[str]] = [concept.neutral]
        for name in (concept.name, *others):
            prompts.append([fill(template, name).text for template in concept.templates])
        return [None, concept.name, *others], torch.stack([self.texts(own).mean(0) for own in prompts])

    @torch.no_grad()
    def texts(self, prompts: Iterable[str]) -> Tensor:
        """g(prompt) / |g(prompt)|, (prompts, F)."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        found = self.model.get_text_features(**tokens.to(self.model.device))
        return F.normalize(found.pooler_output.float(), dim=1)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        found = self.model.get_image_features(pixel_values=prepared(images, self.model.config.vision_config.image_size))
        return F.normalize(found.pooler_output.float(), dim=1)

    def exam(self, concept: str, num_prompts: int) -> Exam:
        """Raises UnknownConceptError for a concept that it was not made for."""
        if concept not in self.concepts:
            raise UnknownConceptError(f"the scorer was not made for {concept!r}")
        own = self.concepts[concept]
        forms = self.settings.prompts.get(own.kind) or FORMS[own.kind]
        erased = [Question(prompt, {}) for prompt in exam_prompts(own, forms, num_prompts)]
        named = [
            Question(fill(template, other).text, {concept: other})
            for other in other_names(self.settings, own)
            for template in own.templates
        ]
        plain = [Question(p, {PROMPT: p}) for p in self.settings.retained if not mentions(p, concept)]
        return Exam(concept, concept, tuple(erased), (*named, *plain))

    def read(self, images: Tensor) -> Answers:
        """For every concept the class that fits best, and which retained prompt does."""
        seen = self.features(images)
        best = {name: (names, (seen @ t.T).argmax(1).tolist()) for name, (names, t) in self.classes.items()}
        if self.retained is not None:
            best[PROMPT] = list(self.settings.retained), (seen @ self.retained.T).argmax(1).tolist()
        return [{name: names[found[i]] for name, (names, found) in best.items()} for i in range(len(images))]

    def match(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """<p(picture), g(prompt) / |g(prompt)|> of every picture and its own prompt, (B,)."""
        unique = list(dict.fromkeys(prompts))
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=images.device)
        return (self.features(images) * self.texts(unique)[rows]).sum(1)


def prepared(images: Tensor, size: int) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] as CLIP reads them: shorter side to `size`, centre, normalised."""
    height, width = images.shape[2:]
    scale = size / min(height, width)
    sides = max(size, round(height * scale)), max(size, round(width * scale))
    resized = F.interpolate(images, sides, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (sides[0] - size) // 2, (sides[1] - size) // 2
    square = resized[:, :, top : top + size, left : left + size]
    mean, std = (square.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (square - mean) / std
