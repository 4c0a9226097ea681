"""Run directories and deltas with anything in them: commands end in words, and write nowhere else.

There is one for every ten cases of ADVANCHOR_FUZZ (`make fuzz`); ADVANCHOR_FUZZ_SEED decides which.
"""

import contextlib
import io
import json
import os
import random
import shutil
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from records import result_of
from typer.main import get_command

import advanchor
from advanchor.artifacts import ArtifactError
from advanchor.batch.file import read_batch
from advanchor.batch.plan import dump_plan, make_tasks
from advanchor.cli import app
from advanchor.evaluation.grids import grid, to_png
from advanchor.rundir.store import Store
from advanchor.runtime.local import run_locally

CASES, SEED = int(os.environ.get("ADVANCHOR_FUZZ", "2500")) // 10, int(os.environ.get("ADVANCHOR_FUZZ_SEED", "0"))
ALLOWED = {0, 1, 2, 130}
COMMAND = get_command(app)  # once: this takes longer than most commands
CHEAP = (
    ["status"], ["status", "--json"], ["results"], ["results", "--json"], ["results", "-f", "csv"], ["report"],
    ["logs"], ["logs", "--json"], ["logs", "star"], ["cancel", "--all"], ["cancel", "star"], ["retry", "--failed"],
    ["retry", "--cancelled"], ["retry", "circle"],
)  # fmt: skip
DEAR = (["resume", "--local"], ["erase", "--local"], ["fuse", "--no-gate", "--method", "task_arithmetic"], ["plan"])
DEAR_SHARE = 0.03  # of the cases: these load the model
PATHS = ("id", "task", "name", "sha256")  # values of which paths are made
SCORES = {"ua": 0.9, "ira": 0.5, "cra": 0.5, "base": {"ua": 0.1, "ira": 0.6, "cra": 0.6}, "num_images": {"erased": 4}}


@pytest.fixture(scope="module")
def sound(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three tasks: one is done and has scores and pictures, one is done, one has failed."""
    folder = tmp_path_factory.mktemp("fuzz")
    prompts = {"kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}
    method = {"name": "no_op", "seconds": 0.0, "steps": 1, "num_latents": 1, "latent_steps": 1, "batch_size": 1}
    content = {
        "model": str(tiny_base), "output": str(folder / "run"), "method": method, "evaluate": None,
        "concepts": [{"name": name, **prompts} for name in ("star", "circle", "shape")],
        "resources": {"device": "cpu", "storage_patience_s": 1},
    }  # fmt: skip
    (folder / "batch.yaml").write_text(json.dumps(content))
    read = read_batch(folder / "batch.yaml")
    spec = read.spec
    tasks, store = make_tasks(spec, read.concepts), Store(spec.output)
    store.keep_plan((folder / "batch.yaml").read_text(), (), dump_plan(spec, tasks))
    assert run_locally(spec, tasks, store, lambda status: None).exit_code == 0
    data = {"delta.safetensors": store.read_file(tasks[0], "delta")}
    data |= {"erased.png": to_png(grid([("base", torch.rand(2, 3, 8, 8)), ("erased", torch.rand(2, 3, 8, 8))]))}
    store.publish(tasks[0], data, result_of(tasks[0], scores=SCORES))
    store.delete(store.task_path(tasks[2], "result.json"))
    record = {"event": "Broke", "reason": "lost", "charged": True, "packed": False, "then": "queued", "node": "here"}
    store.record_attempt(tasks[2], record | {"gang": 1, "started_at": 1000.0, "ended_at": 1001.0, "details": "of it"})
    store.forgive([tasks[1]])
    store.cancel([tasks[1]])
    return folder


# --- what may happen to a file


def cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def flip(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 20))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def replaced(draw: random.Random, data: bytes) -> bytes:
    return draw.choice(
        (b"", b"null", b"[]", b"{}", b"3", b'"x"', b"true", b"[" * 5000, b'{"a":' * 900 + b"1" + b"}" * 900,
         b"\0" * 64, b"\xff" * 64, b"9" * 6000, b"[1e999, NaN]", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}")
    )  # fmt: skip


def hostile(draw: random.Random) -> Any:
    return draw.choice(
        (None, True, -1, 0, 3, 1e308, 10**18, 10**400, float("nan"), "", "x", "\x1b]0;pwned\x07", "\ud800",
         "../../victim", "/etc/passwd", "x/../../../victim/evil", "[/red]", "a" * 5000,
         [], {}, [[]], {"x": {"y": [1]}}, ["../victim"])
    )  # fmt: skip


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found, waiting = [], [content]
    while waiting:
        part = waiting.pop()
        for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            found.append((part, key))
            waiting.append(part[key])
    return found


def altered(draw: random.Random, data: bytes) -> bytes:
    """One value of a JSON file is another, is gone, or has another name; those that become paths come more often."""
    try:
        content = json.loads(data)
        found = places(content)
        paths = [place for place in found if place[1] in PATHS and isinstance(place[0][place[1]], str)]
        container, key = draw.choice(paths if paths and draw.random() < 0.3 else found)
    except (IndexError, RecursionError, ValueError):
        return flip(draw, data)
    match draw.randrange(4):
        case 0 if isinstance(container, dict):
            container[draw.choice(("x", "../x", "", "delta", str(key) + "\x1b"))] = container.pop(key)
        case 1:
            del container[key]
        case 2 if isinstance(container, list):
            container.append(container[key])
        case _:
            container[key] = hostile(draw)
    return json.dumps(content).encode()


CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (cut, flip, replaced, altered, altered, altered)


def damage(draw: random.Random, run: Path, victim: Path) -> str:
    """Do something to one file of a run directory; returns what, for the message of a failure."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    path = draw.choice([path for path in files if path.suffix == ".json"] if draw.random() < 0.7 else files)
    if draw.random() < 0.1:
        target = draw.choice((victim, victim / "theirs", path.parent, path, run / "plan.json", Path("/dev/zero")))
        path.unlink()
        if draw.random() < 0.3 and path.parent != run:
            shutil.rmtree(path.parent)
            path = path.parent
        path.symlink_to(target)
        return f"{path.relative_to(run)} -> {target}"
    if draw.random() < 0.1:
        other = path.with_name(draw.choice(("x.json", "..json", path.name + "\x1b[31m", "result.json")))
        path.rename(other)
        return f"{path.relative_to(run)} renamed {other.name!r}"
    change = draw.choice(CHANGES)
    path.write_bytes(change(draw, path.read_bytes()))
    return f"{path.relative_to(run)} {change.__name__}"


def files_in(folder: Path) -> dict[Path, bytes]:
    """The content of every file, by its path in the folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def restore(sandbox: Path, files: Mapping[Path, bytes]) -> None:
    """What a case has changed is as it was; much faster than a fresh copy."""
    for path in sorted(sandbox.rglob("*"), reverse=True):
        own = path.relative_to(sandbox)
        if path.is_symlink() or (path.is_file() and path.read_bytes() != files.get(own)):
            path.unlink()
        elif path.is_dir() and not any(own in other.parents for other in files):
            shutil.rmtree(path)
    for own, data in files.items():
        if not (sandbox / own).exists():
            (sandbox / own).parent.mkdir(parents=True, exist_ok=True)
            (sandbox / own).write_bytes(data)


def call(arguments: list[str]) -> tuple[int, str]:
    """A command in this process: its exit code and what it printed. Whatever it raises is raised."""
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            COMMAND.main(arguments, prog_name="advanchor")
        except SystemExit as end:
            code = end.code
    return (code if isinstance(code, int) else 0), printed.buffer.getvalue().decode()  # type: ignore[attr-defined]


def outside(sandbox: Path) -> dict[str, bytes | None]:
    """All that lies beside the run directory."""
    found = (path for path in sandbox.rglob("*") if not path.is_relative_to(sandbox / "run"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


def failure(number: int, files: Mapping[Path, bytes], sandbox: Path) -> str:
    """What went wrong in one case; empty if nothing did."""
    draw = random.Random(f"{SEED} {number}")
    restore(sandbox, files)
    happened = [damage(draw, sandbox / "run", sandbox / "victim") for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    command = list(draw.choice(DEAR if draw.random() < DEAR_SHARE else CHEAP))
    where = sandbox / "batch.yaml" if command[0] in ("erase", "plan") else sandbox / "run"
    arguments = [command[0], str(where), *command[1:]]
    if command[0] == "fuse":
        arguments += ["-o", str(sandbox / "run" / "fused")]
    if command[0] in ("erase", "plan"):
        arguments += ["-o", str(sandbox / "run")]
    before = outside(sandbox)
    wrong = ""
    try:
        code, printed = call(arguments)
    except Exception as error:
        wrong = "".join(traceback.format_exception(error)[-3:])
    else:
        if code not in ALLOWED or "Traceback" in printed:
            wrong = f"exit code {code}: {printed[-500:]}"
        elif "\x1b]0;pwned" in printed:
            wrong = "an escape sequence reached the terminal"
    if outside(sandbox) != before:
        wrong += "something was written outside"
    return f"case {number}: {happened}: {command}: {wrong}" if wrong else ""


@pytest.mark.slow
def test_commands_on_damaged_run_directories_end_in_words(sound: Path, tmp_path: Path) -> None:
    files = files_in(sound) | {Path("victim/theirs"): b"theirs"}
    found = [text for number in range(CASES) if (text := failure(number, files, tmp_path))]
    assert not found, f"{len(found)} of {CASES}\n" + "\n".join(found[:20])


@pytest.mark.slow
def test_a_damaged_delta_is_refused_or_is_the_same(sound: Path, tiny_base: Path, tmp_path: Path) -> None:
    """Whatever becomes of its bytes, it is refused with ArtifactError, and nothing of it is applied."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    data = next((sound / "run").rglob("delta-*.safetensors")).read_bytes()
    path, refused = tmp_path / "delta.safetensors", 0
    for number in range(CASES):
        draw = random.Random(f"{SEED} delta {number}")
        changed = draw.choice((cut, flip, replaced))(draw, data)
        path.write_bytes(changed)
        try:
            advanchor.apply(pipeline, path)
        except ArtifactError:
            refused += 1
        else:
            advanchor.remove(pipeline, path)
    after = pipeline.unet.state_dict()
    assert refused >= 0.9 * CASES and all(torch.equal(tensor, after[name]) for name, tensor in before.items())
