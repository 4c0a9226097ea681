"""Processes that have imported everything when they start: forked from one that did so once, for that takes seconds."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess

from patience import PATIENCE_S

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(
    ["zero_ranks", "erase_with_deepspeed", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"]
)


def start(function: Callable[..., None], *arguments: str) -> ForkServerProcess:
    process = server.Process(target=function, args=arguments)
    process.start()
    return process


def wait_for(processes: Sequence[ForkServerProcess]) -> None:
    """Until all have ended well; what one says is in the test's own output."""
    for process in processes:
        process.join(PATIENCE_S)
        assert process.exitcode == 0, process.exitcode
