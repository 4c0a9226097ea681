"""Schedulers to sample with: a pipeline's own, or one of ours for variance-preserving noise."""

from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

SOLVERS: dict[str, Any] = {  # dpm: DPM-Solver++(2M), good from 10 steps on
    "ddim": DDIMScheduler,
    "dpm": DPMSolverMultistepScheduler,
}


def variance_preserving(own: Any, solver: str, num_steps: int) -> Any:
    """A solver for the noise that `own`, a pipeline's scheduler, describes; "own": of the pipeline's own class."""
    scheduler = (type(own) if solver == "own" else SOLVERS[solver]).from_config(own.config)
    scheduler.set_timesteps(num_steps)
    return scheduler


def flow(own: Any, num_steps: int, **timesteps: Any) -> Any:
    """A pipeline's own scheduler of a flow; `timesteps`: what its pipeline tells set_timesteps besides."""
    scheduler = type(own).from_config(own.config)
    scheduler.set_timesteps(num_steps, **timesteps)
    return scheduler
