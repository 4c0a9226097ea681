"""Whatever a batch, a table or an option says: a plan, or errors in words, and soon.

ADVANCHOR_FUZZ: how many mutated batches and tables (`make fuzz`: 20,000); ADVANCHOR_FUZZ_SEED: the first one's seed.
"""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import corpus
import huggingface_hub.constants
import mutations
import pytest
from typer.testing import CliRunner

from advanchor.batch.file import read_batch
from advanchor.batch.plan import make_tasks
from advanchor.batch.problems import is_local, problems
from advanchor.batch.spec import BatchError
from advanchor.cli import app
from advanchor.rundir.storage import Files, StoreError

CASES = int(os.environ.get("ADVANCHOR_FUZZ", 1500))
FIRST = int(os.environ.get("ADVANCHOR_FUZZ_SEED", 0))
BOUND_S = 60  # for one case; on an idle machine the slowest takes about a second


class Hung(BaseException):
    """No `except Exception` holds it up."""


@contextmanager
def bounded() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(BOUND_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all happens; nothing is asked of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def write(folder: Path, batch: str, table: str = mutations.TABLE) -> Path:
    (folder / "batch.yaml").write_bytes(batch.encode(errors="surrogatepass"))
    (folder / "table.csv").write_bytes(table.encode(errors="surrogatepass"))
    return folder / "batch.yaml"


def outcome(path: Path, *options: str, fetch: bool = False) -> str:
    """ "planned", or the problems, which are lines that any terminal may show."""
    files = {"batch.yaml", "table.csv"}
    with bounded():
        try:
            read = read_batch(path, options)
            if found := problems(read.spec, read.concepts, fetch=fetch):
                raise BatchError(read.located(found))
            Files(read.spec.output)
            assert not is_local(read.spec.base) or len(make_tasks(read.spec, read.concepts)) == len(read.concepts)
            said = "planned"
        except (BatchError, StoreError) as error:
            said = str(error)
            if isinstance(error, BatchError) and error.rest:
                error.rest.located(problems(error.rest.spec, error.rest.concepts, fetch=False))
    assert {entry.name for entry in path.parent.iterdir()} == files, "something was written"
    lines = said.split("\n")
    assert said and all(line.isprintable() for line in lines), said
    assert max(map(len, lines)) < 5000
    return said


# --- what failed once


@pytest.mark.parametrize("case", corpus.BATCHES)
def test_a_batch_of_the_corpus_is_refused_in_words(case: str, folder: Path) -> None:
    said = outcome(write(folder, corpus.BATCHES[case]), fetch=True)
    assert said.startswith(f"{folder}/batch.yaml:") or (said == "planned" and case in corpus.RIGHT), said


@pytest.mark.parametrize("case", corpus.TABLES)
def test_a_table_of_the_corpus_is_refused_in_words(case: str, folder: Path) -> None:
    batch = f"{mutations.SMALL}  - {{from: table.csv}}\n".replace("star", "moon")
    assert f"{folder}/table.csv:" in outcome(write(folder, batch, corpus.TABLES[case]))


@pytest.mark.parametrize("option", corpus.OPTIONS, ids=range(len(corpus.OPTIONS)))
def test_an_option_of_the_corpus_is_refused_in_words(option: str, folder: Path) -> None:
    assert outcome(write(folder, mutations.SMALL), option) != "planned"


# --- what a seed makes


def case_of(seed: int) -> tuple[str, str, list[str]]:
    """A batch, a table and options, at least one of them mutated."""
    rng = random.Random(f"advanchor {seed}")
    batch = rng.choice((mutations.BATCH, mutations.BATCH, mutations.SMALL))
    match rng.randrange(5):
        case 0:
            return mutations.BATCH, mutations.table(rng), []
        case 1:
            return batch, mutations.TABLE, [mutations.option(rng) for _ in range(rng.choice((1, 2)))]
    return mutations.mutated(rng, batch), mutations.TABLE, []


CHUNKS = 8


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_mutated_batches_tables_and_options(chunk: int, folder: Path) -> None:
    planned = 0
    for seed in range(FIRST + chunk, FIRST + CASES, CHUNKS):
        batch, table, options = case_of(seed)
        try:
            planned += outcome(write(folder, batch, table), *options) == "planned"
        except BaseException as error:
            error.add_note(f"seed {seed}: case_of({seed}) makes it again")
            raise
    count = len(range(FIRST + chunk, FIRST + CASES, CHUNKS))
    print(f"{count} cases, {planned} of them plans")
    assert 0 < planned < count or count < 100


COMMANDS = ((["check", "--names-only"], 40), (["plan"], 10))


@pytest.mark.parametrize(("command", "count"), COMMANDS, ids=["check", "plan"])
def test_a_command_ends_in_words(command: list[str], count: int, folder: Path) -> None:
    for seed in range(FIRST, FIRST + max(count, CASES * count // 20_000)):
        batch, table, options = case_of(seed)
        words = [word for option in options for word in ("--set", option)] if command == ["plan"] else []
        with bounded():
            done = CliRunner().invoke(app, [*command, str(write(folder, batch, table)), *words])
        codes = {0, 2} if command == ["plan"] else {0, 1, 2}  # 1: findings
        assert done.exit_code in codes, (seed, done.output, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), (seed, done.exception)
        assert "Traceback" not in done.output
