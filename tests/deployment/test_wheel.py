"""The wheel: all that the program needs is in it, and it works where only the wheel is installed."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from .rooms import ROOT

PACKAGE = ROOT / "advanchor"
LEFT_OUT = {"__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the Dockerfile copies, with the setuptools that is here: nothing is downloaded."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "advanchor"):
        (source / name).symlink_to(ROOT / name)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [found] = built.glob("*.whl")
    return found


def test_everything_in_the_package_is_in_the_wheel(wheel: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    files = {name for name in files if not LEFT_OUT & set(Path(name).parts)}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {"advanchor/py.typed", "advanchor/batch/batch.schema.json", "advanchor/report/report.html.j2"} <= files
    assert not files - inside, "name it under package-data or packages in pyproject.toml"
    assert {name for name in inside if not name.startswith(("advanchor/", "advanchor-"))} == set()


def test_it_works_where_only_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    """A venv of its own, which finds the dependencies of this one behind what is installed in it."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", venv], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--quiet", wheel], check=True)
    (tmp_path / "names.txt").write_text("striped\n")
    told = "import sys, advanchor; print(advanchor.__file__)"
    for command in (
        [venv / "bin" / "python", "-c", told],
        [venv / "bin" / "advanchor", "init", "names.txt", "--kind", "style"],
    ):
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(packages) in done.stdout or "1 concepts for pocket" in done.stdout, done.stdout
    assert f"$schema=venv/{packages.relative_to(venv)}/advanchor/batch/" in (tmp_path / "batch.yaml").read_text()
