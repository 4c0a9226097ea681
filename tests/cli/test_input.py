"""What people type: one line of help and exit code 2, never a traceback, and before any work."""

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from advanchor.cli import app
from advanchor.models.profile import GENERAL
from advanchor.pocket.profile import PROFILE

STAR = "concepts:\n  - {name: star, kind: object}\n"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> list[str]:
    """The lines that a command which ends with exit code 2 prints."""
    done = command(*arguments)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit) and not done.stdout and "Traceback" not in done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize("name", ["status", "results", "report", "logs", "resume"])
@pytest.mark.parametrize("url", ["nowhere://x", "github://x", "zip://x", "ftp://x", "~nosuchuser/x", "a\0b"])
def test_a_run_directory_that_cannot_be_is_one_line(name: str, url: str) -> None:
    [line] = refused(name, url)
    assert line.startswith("error: run directory ") and "cannot be opened" in line


@pytest.mark.parametrize("name", ["plan", "erase"])
def test_an_output_that_cannot_be_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text(f"model: pocket\n{STAR}")
    (tmp_path / "file").write_text("")
    started = time.monotonic()
    for output in ("nowhere://x", "zip://x", "~nosuchuser/x", tmp_path / "file"):
        [line] = refused(name, tmp_path / "batch.yaml", "-o", output)
        assert "cannot be opened" in line
    assert time.monotonic() - started < 100  # storage that fails for a while is asked again for 120 s


def test_all_that_is_wrong_is_said_at_once_by_plan(tiny_base: Path, tmp_path: Path) -> None:
    """Also what only the base can tell, though the settings are wrong, too."""
    long = f"templates: ['{'very ' * 40}{{}}'], neutral: [a]"
    (tmp_path / "concepts.csv").write_text("name,kind\nmoon,objekt\n")
    (tmp_path / "batch.yaml").write_text(
        f"model: {tiny_base}\nconcepts:\n  - {{name: star, kind: object, {long}}}\n"
        "  - {from: concepts.csv}\nsede: 1\n"
    )
    lines = refused("plan", tmp_path / "batch.yaml", "--set", "resources.gpus_per_task=3", "--set", "seed=-1")
    assert [line.removeprefix("error: ").removeprefix(f"{tmp_path}/").split(": ")[0] for line in lines] == [
        "--set seed=-1", "batch.yaml:5:1", "concepts.csv:2", "batch.yaml:3:5", "batch.yaml:1:1",
    ]  # fmt: skip


def test_nothing_is_fetched_for_a_batch_with_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    (tmp_path / "batch.yaml").write_text(f"model: someone/some-model\nsede: 1\n{STAR}")
    [line] = refused("plan", tmp_path / "batch.yaml")
    assert "'sede' is not one of" in line


@pytest.mark.parametrize("name", ["report", "resume"])
def test_a_batch_file_in_a_run_directory_is_not_read_again(name: str, tmp_path: Path) -> None:
    """Its nested aliases once kept these commands busy for ever."""
    rows = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    (tmp_path / "batch.yaml").write_text("\n".join(rows))
    done = command(name, tmp_path)
    assert done.exit_code == (0 if name == "report" else 2)


def test_a_run_of_version_0_1_is_refused_in_a_sentence(tmp_path: Path) -> None:
    plan = {"spec": {"model": "pocket", "concepts": []}, "tasks": [{"id": "0", "base_digest": "b"}]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    for name in ("resume", "logs"):
        [line] = refused(name, tmp_path)
        assert line.startswith(f"error: {tmp_path}/plan.json was written by version 0.1")


def test_plan_says_what_a_base_without_a_profile_is_erased_with(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text(f"model: {tiny_base}\n{STAR}")
    told = command("plan", tmp_path / "batch.yaml", "-o", tmp_path / "run")
    assert (
        "this base has no profile: concepts without prompts get general ones (object: 'a photo of a {}'" in told.stdout
    )
    assert "retained prompts are sampled from 'general'" in told.stdout
    found = json.loads(command("plan", tmp_path / "batch.yaml", "-o", tmp_path / "run", "--json").stdout)["profile"]
    assert found["digest"] == GENERAL.digest and found["retained"] == "general"
    assert found["prompts"]["object"]["templates"] == list(GENERAL.prompts["object"].templates)


def test_plan_says_which_profile_a_base_has(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text(f"model: pocket\n{STAR}")
    told = command("plan", tmp_path / "batch.yaml", "-o", tmp_path / "run")
    assert told.exit_code == 0 and "no profile" not in told.stdout
    found = json.loads(command("plan", tmp_path / "batch.yaml", "-o", tmp_path / "run", "--json").stdout)["profile"]
    assert found["name"] == PROFILE.name and found["prompts"].keys() == {"object"}


# --- generate


def test_pictures_go_into_a_new_folder(tiny_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "star.png"
    done = command("generate", "a star", "--model", tiny_base, "-o", path, "--count", 1, "--steps", 1)
    assert done.exit_code == 0 and path.is_file()


@pytest.mark.parametrize(
    "arguments",
    [("-o", "{}"), ("-o", "{}/file/star.png"), ("--guidance", "nan"), ("--guidance", "inf"), ("--steps", "9" * 5000),
     ("--count", "0")],
    ids=["a folder", "a file as folder", "nan", "inf", "digits", "nothing"],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_before_any_work(arguments: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    option, value = arguments
    lines = refused("generate", "a star", "--model", "nothing/at/all", option, value.format(tmp_path))
    assert any(option in line for line in lines) and not any("nothing/at/all" in line for line in lines)
