"""README and docs: commands parse, batches and Python are sound, links lead somewhere, every room is there."""

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from test_imports import ROOMS

import advanchor
from advanchor.batch import yaml_lines
from advanchor.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND: Any = typer.main.get_command(app)


def page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[str]:
    """Indented and fenced blocks of a page."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    indented = re.findall(r"(?:^(?:    .*|)\n)+", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return [*fenced, *(textwrap.dedent(block).strip("\n") for block in indented if block.strip())]


def commands() -> Iterator[tuple[str, str]]:
    """Every `advanchor ...` of every page: lines of blocks without what explains them, and what stands in backticks."""
    for path in PAGES:
        text = path.read_text()
        lines = [line for block in blocks(text) for line in block.splitlines() if line.startswith("advanchor ")]
        spans = re.findall(r"`(advanchor [^`\n]+)`", text)
        for line in dict.fromkeys([*lines, *spans]):
            yield page(path), re.split(r"\s{2,}|\s#\s", line)[0]


def arguments(line: str) -> list[str]:
    """A command as one may type it: optional parts left out, of alternatives the first."""
    plain = re.sub(r"\[[^\]]*\]", "", line) if "=[" not in line else line
    return [word for word in shlex.split(plain.split(" | ")[0])[1:] if word != "..."]


@pytest.mark.parametrize(("where", "line"), [pytest.param(*found, id=": ".join(found)[:90]) for found in commands()])
def test_commands_parse(where: str, line: str) -> None:
    words, command = arguments(line), COMMAND
    while (commands := getattr(command, "commands", {})) and words and not words[0].startswith("-"):
        assert words[0] in commands, f"{where} shows {line!r}; there are {', '.join(commands)}"
        command, words = commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    for word in (word.partition("=")[0] for word in words if word.startswith("-") and not re.match(r"-\d", word)):
        assert word in known, f"{where}: {line!r} has {word}; there are {', '.join(sorted(known))}"


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_python_compiles_and_batches_are_yaml(path: Path) -> None:
    for block in blocks(path.read_text()):
        if re.match(r"(from|import) \w|erased = ", block):
            ast.parse(block)
        elif re.match(r"(model|evaluate|prompts|presets|concepts|method): ?", block):
            yaml_lines.parse(block)


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page(path)} links to {target}"


def test_every_public_name_has_a_place_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    documented = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", page, re.M)}
    assert set(advanchor.__all__) <= documented


def test_every_page_has_a_place_in_the_site() -> None:
    """mkdocs, which `make docs` calls, fails on a place without its page."""
    site = (ROOT / "mkdocs.yml").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.is_relative_to(ROOT / "docs")}
    assert pages | {"index.md", "contributing.md"} == set(re.findall(r": (\S+\.md)$", site, re.M))


def test_the_readme_s_tree_has_every_room() -> None:
    tree = (ROOT / "README.md").read_text().partition("## The packages")[2]
    for rooms in ROOMS:
        for room in rooms:
            there = rf"\b{room}/" if (ROOT / "advanchor" / room).is_dir() else rf"\b{room}\.py"
            assert room.startswith("_") or re.search(there, tree), room


def test_the_picture_of_the_rooms_is_true() -> None:
    """docs/architecture.md draws each floor above the next one."""
    picture = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.S)
    assert picture
    edges = [
        [part.strip().split(" & ") for part in line.split("-->")] for line in picture[1].splitlines() if "-->" in line
    ]
    floors = [[room for room in rooms if not room.startswith("_")] for rooms in reversed(ROOMS)]
    assert [sorted(upper) for upper, _ in edges] == [sorted(rooms) for rooms in floors[:-1]]
    assert [sorted(lower) for _, lower in edges] == [sorted(rooms) for rooms in floors[1:]]
