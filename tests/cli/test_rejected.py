"""What a person did not accept is erased once more, and only what is accepted is fused."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from advanchor.cli import app
from advanchor.rundir.store import Store
from advanchor.rundir.verdicts import give

NAMES = ("circle", "star", "someone")


def command(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def judge(store: Store, **said: str) -> None:
    for result in store.results():
        if word := said.get(result["concept"]["name"]):
            give(store, result, word, "a note")


def current(store: Store) -> dict[str, dict]:
    """Results of the tasks of status.json, by name."""
    ids = {entry["id"] for entry in (store.read_json("status.json") or {})["tasks"]}
    return {result["concept"]["name"]: result for result in store.results() if result["task"] in ids}


@pytest.fixture(scope="module")
def batch(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    method = {"steps": 2, "anchor_steps": 2, "batch_size": 2, "num_latents": 2, "latent_steps": 2, "lr": 1e-2}
    prompts = {"kind": "object", "templates": ["a {}"], "neutral": ["a shape"]}
    content = {"model": str(tiny_base), "output": str(folder / "run"), "method": method, "evaluate": None}
    path = folder / "batch.yaml"
    path.write_text(json.dumps(content | {"concepts": [{"name": name, **prompts} for name in NAMES]}))
    command("erase", path, "--local")
    return path


def test_rejected_ones_are_erased_once_more_and_accepted_ones_fused(batch: Path, tmp_path: Path) -> None:
    run = batch.parent / "run"
    store = Store(str(run))
    assert "0 to be tried again" in command("retry", run, "--rejected")
    assert "nobody has accepted" in command("fuse", run, "-o", tmp_path / "none", "--accepted", "--no-gate", code=2)
    judge(store, circle="accept", star="reject", someone="again")
    first = current(store)
    assert "2 to be tried again" in command("retry", run, "--rejected")
    command("resume", run, "--local")
    second = current(store)
    assert second["circle"] == first["circle"]
    for name in ("star", "someone"):
        assert second[name]["seed"] != first[name]["seed"]
        assert second[name]["files"]["delta"]["sha256"] != first[name]["files"]["delta"]["sha256"]
    assert "3 done" in command("erase", batch, "--local") and current(store) == second  # the batch knows of it, too

    command("fuse", run, "-o", tmp_path / "one", "--accepted", "--no-gate")
    fused = json.loads((tmp_path / "one" / "fused.json").read_text())
    assert [entry["concept"]["name"] for entry in fused["concepts"]] == ["circle"]
    judge(store, star="accept")
    assert current(store)["star"]["task"] in {name[9:-5] for name in store.find("verdicts", "*")}
    command("fuse", run, tmp_path / "one", "-o", tmp_path / "two", "--accepted", "--no-gate")
    fused = json.loads((tmp_path / "two" / "fused.json").read_text())
    assert {entry["concept"]["name"]: entry["task"] for entry in fused["concepts"]} == {
        "circle": second["circle"]["task"], "star": second["star"]["task"],
    }  # fmt: skip


def test_other_settings_for_what_was_rejected(batch: Path) -> None:
    run = batch.parent / "run"
    store = Store(str(run))
    judge(store, circle="again")
    for bad, why in (
        ("lr=-1", "lr: -1"), ("stpes=3", "did you mean 'steps'"), ("name=uce", "whole run's"), ("steps", "has no '='"),
    ):  # fmt: skip
        assert why in command("retry", run, "--rejected", "--set", bad, code=2)
    assert "only with --rejected" in command("retry", run, "--failed", "--set", "steps=3", code=2)
    assert store.find("replaced", f"{current(store)['circle']['task']}*") == []
    command("retry", run, "--rejected", "--set", "method.steps=3")
    command("resume", run, "--local")
    assert current(store)["circle"]["method"]["steps"] == 3
