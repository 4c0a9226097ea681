"""DeepSpeed ZeRO behind the Engine interface: made once per process, reset in place between tasks.

Making a second engine in a process leaks memory (forward hooks, stage 3's list of modules), so there is one for life.
The UNet is called as `engine.module`, never as the engine itself: below stage 3 `autograd.grad` with respect to an
embedding fails through the engine's own forward.
"""

import contextlib
import importlib
import os
from collections.abc import Mapping
from typing import Any, cast

import deepspeed
import psutil
import torch
import torch.distributed as dist
from deepspeed.runtime import compiler
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store

NO_GRADIENT_CLIPPING = 0.0


def join_ranks(rank: int, world_size: int, store: Store, device: str = "gpu") -> None:
    """Make this process rank `rank` of `world_size`; the store is one that all ranks reach; device: "gpu" or "cpu".

    The ranks share a node: what gloo and NCCL open for them to find each other listens on loopback only.
    """
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": "0"}
    os.environ |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), loopback_interface())
    backend = "nccl" if device == "gpu" and torch.cuda.is_available() else "gloo"
    if not torch.cuda.is_available():  # or the first init spends most of a minute compiling a kernel
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    dist.init_process_group(backend, rank=rank, world_size=world_size, store=store)
    deepspeed.init_distributed(dist_backend=backend)
    import_muon()


def import_muon() -> None:
    """An optimizer that every engine asks for and no task uses: without the compiler for its kernels, which takes
    seconds to import."""
    compile_kernels, compiler.compile = compiler.compile, lambda: compiler.dummy_decorator
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        compiler.compile = compile_kernels


def loopback_interface() -> str:
    """The name of the interface that has 127.0.0.1: lo, on Linux."""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, found in interfaces if any(each.address == "127.0.0.1" for each in found)), "lo")


def configuration(stage: int, precision: str, offload: str) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage}
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = 0
    if offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bf16"},
        "gradient_clipping": NO_GRADIENT_CLIPPING,
        "steps_per_print": 10**9,
    }


class DeepSpeedEngine:
    """The student's optimizer, partitioned over the ranks. join_ranks comes first."""

    def __init__(
        self, unet: nn.Module, parameters: dict[str, nn.Parameter], *, stage: int, precision: str, offload: str
    ) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.stage = stage
        self.parameters = parameters
        self.engine: Any  # its own annotations name every optimizer there is
        self.engine, *_ = deepspeed.initialize(
            model=unet,
            model_parameters=list(parameters.values()),  # type: ignore[arg-type] # any iterable
            optimizer=torch.optim.Adam(parameters.values()),
            config=configuration(stage, precision, offload),
        )
        self.module: nn.Module = self.engine.module

    def gathered(self) -> contextlib.AbstractContextManager:
        """The delta's tensors whole on every rank, writable by rank 0 (at stage 3 they are partitioned)."""
        if self.stage < 3:
            return contextlib.nullcontext()
        return deepspeed.zero.GatheredParameters(list(self.parameters.values()), modifier_rank=0)

    def reset(self, lr: float) -> None:
        with torch.no_grad(), self.gathered():
            for parameter in self.parameters.values():
                parameter.zero_()
        self.restart_optimizer()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr

    def load(self, delta: Mapping[str, Tensor], slot: int = 0) -> None:
        """Set a slot in the working copy and in the float32 masters."""
        with torch.no_grad(), self.gathered():
            for name, parameter in self.parameters.items():
                parameter[slot].copy_(delta[name])
        self.restart_optimizer()

    def restart_optimizer(self) -> None:
        """The masters become what the working copy is; moments and gradients are forgotten."""
        optimizer = self.engine.optimizer
        optimizer.zero_grad()
        optimizer.refresh_fp32_params()
        optimizer.optimizer.state.clear()

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)

    def step(self) -> None:
        self.engine.step()

    def mean(self, tensor: Tensor) -> Tensor:
        if self.world_size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total / self.world_size

    def gather(self, tensor: Tensor) -> Tensor:
        if self.world_size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def export(self) -> dict[str, Tensor]:
        """From the float32 masters, never from a bf16 working copy."""
        masters = {name: safe_get_full_fp32_param(parameter) for name, parameter in self.parameters.items()}
        return {name: cast(Tensor, master).detach().cpu().float().clone() for name, master in masters.items()}
