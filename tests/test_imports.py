"""Imports run one way through the rooms, bottom to top, and nothing heavy comes unasked."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import advanchor

ROOT = Path(advanchor.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = (  # from the bottom up; rooms of one line do not import each other
    ("_version", "messages"),
    ("settings",),
    ("concepts",),
    ("models",),
    ("training",),
    ("artifacts",),
    ("methods", "evaluation"),
    ("pocket",),
    ("art",),
    ("batch",),
    ("rundir",),
    ("fusion", "report", "export"),
    ("api",),
    ("runtime",),
    ("studies", "bench"),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


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


def room(name: str) -> str:
    """Of a dotted name within the program; empty for the package itself and for what is not the program's."""
    parts = name.split(".")
    return parts[1] if parts[0] == "advanchor" and len(parts) > 1 else ""


def module(path: Path) -> str:
    return ".".join(("advanchor", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def known(name: str) -> bool:
    """Whether a dotted name is a module of the program, not something inside one."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def modules_imported(path: Path) -> set[str]:
    """The program's modules that a file names; of a package and something inside it, what is inside."""
    names = {name for name in imported(path) if known(name) and name != "advanchor"}
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def test_every_room_has_its_floor() -> None:
    assert {room(module(path)) for path in FILES} - {""} == FLOOR.keys()


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_one_way(path: Path) -> None:
    own = room(module(path))
    others = {room(name) for name in imported(path) if known(name)} - {own, ""}
    if own:  # the package itself hands on the interface
        assert not {other for other in others if FLOOR[other] >= FLOOR[own]}


def test_files_do_not_import_in_circles() -> None:
    """Also not through imports inside functions."""
    edges = {module(path): modules_imported(path) - {module(path)} for path in FILES}
    while ends := {name for name, targets in edges.items() if not targets & edges.keys()}:
        edges = {name: targets for name, targets in edges.items() if name not in ends}
    while starts := edges.keys() - set().union(*edges.values()):
        edges = {name: targets for name, targets in edges.items() if name not in starts}
    assert not edges, f"circles among {sorted(edges)}"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_ray_and_deepspeed_stay_in_the_machine_room(path: Path) -> None:
    heavy = {name for name in imported(path) if name.split(".")[0] in ("ray", "deepspeed")}
    assert not heavy or path.is_relative_to(ROOT / "runtime") or module(path) == "advanchor.cli.doctor"


def test_the_walk_sees_what_it_looks_for() -> None:
    seen = {name.split(".")[0] for path in FILES for name in imported(path)}
    assert {"ray", "deepspeed", "torch", "advanchor"} <= seen
    assert "runtime" in {room(name) for name in imported(ROOT / "cli" / "erase.py")}


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after `code`."""
    told = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)
    return set(done.stderr.splitlines()[-1].split())


def test_the_method_needs_neither_ray_nor_deepspeed() -> None:
    rooms = ("api", "batch.disk", "batch.estimate", "batch.file", "fusion.fuse")
    loaded = modules_after("\n".join(f"import advanchor.{name}" for name in rooms))
    assert "torch" in loaded and not loaded & {"ray", "deepspeed"}


def running(arguments: list[str], code: int) -> str:
    """A program that runs a command, which ends with this exit code."""
    tried = f"try:\n    app({arguments})\nexcept SystemExit as end:\n    assert end.code == {code}"
    return f"from advanchor.cli import app\n{tried}"


SLOW = {"diffusers", "transformers", "ray", "deepspeed"}  # seconds, each


@pytest.mark.parametrize("arguments", [["--help"], ["erase", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_no_torch(arguments: list[str]) -> None:
    loaded = modules_after(running(arguments, 0))
    assert "typer" in loaded and not loaded & {"torch", "numpy", "asyncio", *SLOW}


@pytest.mark.slow
def test_plan_imports_little_before_it_touches_a_model(tmp_path: Path) -> None:
    """So that a mistake in a batch is told at once."""
    (tmp_path / "batch.yaml").write_text("model: pocket\nconcepts: [{name: star, kind: objet}]\n")
    loaded = modules_after(running(["plan", str(tmp_path / "batch.yaml")], 2))
    assert "torch" in loaded and not loaded & SLOW
