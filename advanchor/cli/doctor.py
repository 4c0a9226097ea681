"""advanchor doctor: is this machine ready?"""

import os
import platform
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from advanchor.cli import common
from advanchor.cli.console import cell, console

GOOD, WARNING, BAD = "ok", "warning", "bad"
Finding = tuple[str, str]  # GOOD, WARNING or BAD; and what was found


def doctor() -> None:
    """Check versions, devices, Ray, DeepSpeed, the token file and the disk; exit code 1 if something is bad."""
    common.quiet()
    checks: dict[str, Callable[[], Finding]] = {
        "python": python,
        "packages": packages,
        "device": device,
        "pocket galleries": galleries,
        "ray": ray_starts,
        "deepspeed": deepspeed_trains,
        "token": token,
        "disk": disk,
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    findings = []
    for name, check in checks.items():
        try:
            level, text = check()
        except Exception as error:  # a check that cannot run is a finding, not a crash
            level, text = BAD, f"{type(error).__name__}: {error}"
        findings.append(level)
        colour = {GOOD: "green", WARNING: "yellow", BAD: "red"}[level]
        table.add_row(name, cell(level, colour), cell(text))
    console().print(table)
    raise SystemExit(common.SOME_FAILED if BAD in findings else common.OK)


def python() -> Finding:
    return GOOD, f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores"


def packages() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    names = ("torch", "diffusers", "transformers", "deepspeed", "ray", "safetensors")
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return (BAD, f"missing: {', '.join(missing)}") if missing else (GOOD, ", ".join(found))


def device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return WARNING, "no GPU: erasing runs on the CPU, which is meant for the pocket gallery"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return GOOD, ", ".join(names)


def galleries() -> Finding:
    from advanchor import models
    from advanchor.models.digests import folder_digest

    found = models.built_in()
    for folder in found.values():
        models.adapter(folder)
    return GOOD, ", ".join(f"{name}: digest {folder_digest(folder)[:12]}" for name, folder in found.items())


def ray_starts() -> Finding:
    import ray

    from advanchor.runtime.ray_cluster import connected

    with connected("local"):
        resources = ray.cluster_resources()
    return GOOD, f"starts here: CPU {resources.get('CPU', 0):g}, GPU {resources.get('GPU', 0):g}"


def deepspeed_trains() -> Finding:
    import torch
    from torch import nn
    from torch.distributed import HashStore

    from advanchor.runtime.deepspeed_engine import DeepSpeedEngine, join_ranks

    join_ranks(0, 1, HashStore())
    layer = nn.Linear(2, 1)
    engine = DeepSpeedEngine(layer, dict(layer.named_parameters()), stage=1, precision="fp32", offload="none")
    engine.reset(0.1)
    engine.backward(engine.module(torch.ones(1, 2)).sum())
    engine.step()
    moved = engine.export()["weight"].abs().sum().item()
    return (GOOD, "one ZeRO stage 1 step") if moved > 0 else (BAD, "a step changed nothing")


def token() -> Finding:
    path = Path("~/.ray/auth_token").expanduser()
    if not path.exists():
        return GOOD, "none yet; the first run makes one"
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return BAD, f"{path} is readable for others (mode {mode:o}): chmod 600 {path}"
    return GOOD, f"{path}, mode {mode:o}"


def disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return (GOOD if free > 5 else WARNING), f"{free:.0f} GiB free here"
