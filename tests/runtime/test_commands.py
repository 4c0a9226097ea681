"""Commands that act on a run from elsewhere: cancel, retry, submit."""

import json
from pathlib import Path

import pytest
import short_runs as runs

from advanchor.batch.plan import load_plan
from advanchor.rundir.status import RunStatus
from advanchor.runtime.ledger import Ledger
from advanchor.runtime.rehearsal import RehearsalCluster

Deltas = dict[str, str]


def test_cancel_ends_running_and_queued_concepts_and_the_gang_stays(
    cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path
) -> None:
    batch = runs.write_batch(tmp_path, tiny_base, runs.NAMES)
    content = json.loads(batch.read_text())
    content["method"]["steps"] = 10_000  # nobody waits for these
    batch.write_text(json.dumps(content))
    store, asked = runs.store_of(batch), []

    def act(status: RunStatus) -> None:
        for row in status.tasks:
            if runs.is_training(row) and row.name not in asked:
                asked.append(row.name)
                runs.command("cancel", store.url, *(["cat", "fox"] if row.name == "cat" else ["--all"]))

    status = runs.drive(batch, act)
    assert asked == ["cat", "dog"]
    assert status.exit_code == 1 and status.count("cancelled") == 4 and runs.deltas(store) == {}
    assert {name: runs.events(store, name) for name in runs.NAMES} == {
        "cat": ["Cancelled"], "dog": ["Cancelled"], "fox": [], "owl": [],
    }  # fmt: skip
    assert {runs.attempts(store, name)[0]["gang"] for name in ("cat", "dog")} == {1}

    assert runs.drive(batch).count("cancelled") == 4  # starting again does not bring them back, ...
    runs.command("retry", store.url, "--cancelled")  # ... but this does
    ledger = Ledger(*load_plan(store.read_json("plan.json")), store)
    ledger.open()
    assert ledger.unfinished == 4


def test_a_submitted_batch_runs_on_the_cluster_by_itself(
    cluster: RehearsalCluster, undisturbed: Deltas, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch and its table travel with the job; whoever submits it again is told that it is at work.

    This process asks again, at once: a new process would take seconds to start, in which the job may end."""
    batch = runs.write_batch(tmp_path, tiny_base)
    content = json.loads(batch.read_text())
    content["concepts"] += [{"from": "tables/more.csv"}]
    batch.write_text(json.dumps(content))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "more.csv").write_text("name,kind\nelk,object\n")
    monkeypatch.setenv("RAY_ADDRESS", f"http://{cluster.ray.webui_url}")
    arguments = ("submit", str(batch), "--set", "method.lr=1e-3", "--json")
    first = json.loads(runs.run(tmp_path, *arguments))
    second = json.loads(runs.command(*arguments))
    follower = runs.start(tmp_path, *arguments, "--follow")
    assert follower.stdout is not None
    follower.stdout.readline()  # it has read the batch
    assert first["new"] and not second["new"] and second["job"] == first["job"]
    for path in (batch, tmp_path / "tables" / "more.csv"):
        path.unlink()
    assert f"report: {first['output']}/report/index.html" in runs.ended(follower)
    found = runs.deltas(runs.Store(first["output"]))
    assert found.keys() == {"cat", "dog", "elk"}
    assert all(found[name] == undisturbed[name] for name in ("cat", "dog"))
