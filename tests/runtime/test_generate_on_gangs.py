"""advanchor generate --prompts on a cluster: every process draws a share, and the pictures are those of one."""

from pathlib import Path

import short_runs as runs

from advanchor.runtime.rehearsal import RehearsalCluster

TABLE = "prompt,seed,guidance\n" + "".join(f"a star,{n},{n}\n" for n in range(1, 5))  # a scale each: a group each


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "base").glob("*.png")}


def test_two_processes_draw_what_one_draws(cluster: RehearsalCluster, tiny_base: Path, tmp_path: Path) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text(TABLE)
    words = ("generate", "--prompts", str(table), "--model", str(tiny_base), "--steps", "2", "--folder")
    assert "4 rows, 4 drawn: base" in runs.run(tmp_path, *words, str(tmp_path / "one"))
    assert "4 rows, 4 drawn: base" in runs.run(tmp_path, *words, str(tmp_path / "two"), "--gangs", "2")
    found = pictures(tmp_path / "two")
    assert len(found) == 4 and found == pictures(tmp_path / "one")
    (tmp_path / "two" / "base" / "000002.png").unlink()
    assert "4 rows, 1 drawn: base" in runs.run(tmp_path, *words, str(tmp_path / "two"), "--gangs", "3")
    assert pictures(tmp_path / "two") == found
