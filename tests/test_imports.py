"""Imports run one way: cli -> studies, bench -> runtime -> the method; and nothing heavy comes unasked."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import advanchor

ROOT = Path(advanchor.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = {"cli": 3, "studies": 2, "bench": 2, "runtime": 1}  # of a room; all others: 0, the method


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, anywhere in it; of `from a import b` both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(name: str) -> int:
    """Of a dotted name or of a file's."""
    return LEVELS.get(name.split(".")[1], 0) if name.startswith("advanchor.") else 0


def module(path: Path) -> str:
    return ".".join(("advanchor", *path.relative_to(ROOT).with_suffix("").parts))


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_one_way(path: Path) -> None:
    upwards = {name for name in imported(path) if level(name) > level(module(path))}
    assert not upwards


@pytest.mark.parametrize("path", FILES, ids=module)
def test_ray_and_deepspeed_stay_in_the_machine_room(path: Path) -> None:
    heavy = {name for name in imported(path) if name.split(".")[0] in ("ray", "deepspeed")}
    assert not heavy or path.is_relative_to(ROOT / "runtime") or module(path) == "advanchor.cli.doctor"


def test_the_walk_sees_what_it_looks_for() -> None:
    seen = {name.split(".")[0] for path in FILES for name in imported(path)}
    assert {"ray", "deepspeed", "torch", "advanchor"} <= seen
    assert any(level(name) == 1 for name in imported(ROOT / "cli" / "erase.py"))


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after `code`."""
    told = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)
    return set(done.stderr.splitlines()[-1].split())


def test_the_method_needs_neither_ray_nor_deepspeed() -> None:
    loaded = modules_after("import advanchor, advanchor.api, advanchor.methods, advanchor.spec, advanchor.plan")
    assert "torch" in loaded and not loaded & {"ray", "deepspeed"}


@pytest.mark.parametrize("arguments", [["--help"], ["erase", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_no_torch(arguments: list[str]) -> None:
    code = (
        f"from advanchor.cli import app\ntry:\n    app({arguments})\nexcept SystemExit as end:\n    assert not end.code"
    )
    loaded = modules_after(code)
    assert "typer" in loaded and not loaded & {"torch", "numpy", "diffusers", "transformers", "ray", "deepspeed"}
