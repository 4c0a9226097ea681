"""A base's own world: the prompts of its concepts, the prompts it is to keep, who reads its pictures.

A profile is found by what a base is (its digest), never by what it is called: by path, by hub id or by a built-in
name, the same base has the same profile. Profiles are installed as entry points of the group `advanchor.profiles`.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from advanchor.concepts import Prompts, pairs
from advanchor.models.digests import files_weights_digest, folder_digest
from advanchor.models.vocabulary import general_prompts, mentions, words

GROUP = "advanchor.profiles"
SAMPLE = 64  # prompts of a vocabulary that stand for it in a profile's digest


@dataclass(frozen=True)
class Profile:
    """What is known of some bases beside their weights."""

    name: str
    prompts: Mapping[str, Prompts]  # what concepts without prompts of their own are erased with, by kind
    vocabulary: str  # what its sampled prompts are called in retain.yaml
    sample: Callable[[int, random.Random], list[str]]  # so many prompts of the bases' world, at random
    scorer: Callable[[Any], Any] | None = None  # a device -> an evaluation.exam.Scorer of their pictures
    bases: Mapping[str, Path] = field(default_factory=dict)  # name in batches -> folder of a pipeline

    @cached_property
    def digest(self) -> str:
        """sha256 of everything here that decides an erasure's numbers."""
        prompts = {kind: [own.templates, own.neutral] for kind, own in sorted(self.prompts.items())}
        sample = self.sample(SAMPLE, random.Random(0))
        content = json.dumps([prompts, self.vocabulary, sample])
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def folder_digests(self) -> set[str]:
        return {folder_digest(folder) for folder in self.bases.values()}

    @cached_property
    def weights_digests(self) -> set[str]:
        return {files_weights_digest(folder) for folder in self.bases.values()}

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "digest": self.digest, "retained": self.vocabulary}


GENERAL = Profile(
    name="general",
    prompts={
        "style": pairs(("a painting in the style of {}", "a painting"), ("art by {}", "art")),
        "object": pairs(("a photo of a {}", "a photo of an object"), ("a {}", "an object")),
        "identity": pairs(("a photo of {}", "a photo of a person"), ("a portrait of {}", "a portrait of a person")),
        "explicit": pairs(("a photo of {}", "a photo"), ("a person, {}", "a person")),
    },
    vocabulary="general",
    sample=general_prompts,
)


@cache
def profiles() -> tuple[Profile, ...]:
    """All that are installed, by name."""
    return tuple(point.load() for point in sorted(entry_points(group=GROUP), key=lambda point: point.name))


def profile_of(digest: str) -> Profile:
    """The profile of the base with this digest, of its folder or of its weights; GENERAL if it has none."""
    own = (found for found in profiles() if digest in found.folder_digests or digest in found.weights_digests)
    return next(own, GENERAL)


def built_in() -> dict[str, Path]:
    """The folders of the bases that come with the program, by name."""
    return {name: folder for profile in profiles() for name, folder in profile.bases.items()}


def vocabularies() -> dict[str, Callable[[int, random.Random], list[str]]]:
    """What prompts can be sampled from, by the name that retain.yaml has for it."""
    return {profile.vocabulary: profile.sample for profile in (*profiles(), GENERAL)}


def sampled_prompts(vocabulary: str, count: int, seed: int, without: Sequence[str] = ()) -> list[str]:
    """At most `count` different prompts of a vocabulary, none of which mentions a name of `without`."""
    sampled = vocabularies()[vocabulary](count, random.Random(f"{vocabulary} {seed}"))
    unique = [prompt for prompt in dict.fromkeys(sampled) if words(prompt)]
    return [prompt for prompt in unique if not any(mentions(prompt, name) for name in without)]
