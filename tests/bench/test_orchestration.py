"""The share of a run that is not work, by hand."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from advanchor.bench.orchestration import of
from advanchor.cli import app


def attempt(gang: int, started_at: float, ended_at: float) -> dict[str, float]:
    return {"gang": gang, "started_at": started_at, "ended_at": ended_at}


def test_two_gangs_in_ten_seconds_with_sixteen_of_work() -> None:
    results = [{"seconds": {"erasing": 7.0, "evaluating": 1.0}}, {"seconds": {"erasing": 8.0}}]
    found = of(results, [attempt(1, 100.0, 108.5), attempt(2, 101.0, 110.0)])
    assert (found.concepts, found.gangs, found.wall_s, found.erasing_s) == (2, 2, 10.0, 16.0)
    assert found.share == pytest.approx(0.2)  # 4 of 20 seconds
    assert "2 concepts on 2 gangs" in found.sentence() and "20.00%" in found.sentence()


def test_a_run_without_results_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "orchestration", str(tmp_path)])
    assert done.exit_code == 2 and "nothing is finished" in done.stderr
