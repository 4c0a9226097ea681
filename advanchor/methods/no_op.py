"""Erases nothing: leaves a delta of zero. What a run costs beside the erasing, and what scores are worth without it."""

import time
from typing import Literal

from pydantic import Field

from advanchor.concepts import Concept
from advanchor.training.context import Context, Erasure, TrainingSettings
from advanchor.training.cost import Cost
from advanchor.training.loop import erasures

VERSION = 1
PACKABLE = True
LOOK_S = 0.1  # how often a task that waits looks whether it is to stop


class Settings(TrainingSettings):
    name: Literal["no_op"] = "no_op"
    seconds: float = Field(default=0.0, ge=0, description="how long it waits, as if there were something to learn")


def erase(context: Context, settings: Settings) -> list[Erasure]:
    end = time.monotonic() + settings.seconds
    while (left := end - time.monotonic()) > 0:
        context.report("waiting", 0, 1, 0.0)
        time.sleep(min(left, LOOK_S))
    return erasures(context, settings.trained_weights)


def cost(settings: Settings, concept: Concept) -> Cost:
    return Cost()


def problems(settings: Settings, concept: Concept) -> list[str]:
    return []
