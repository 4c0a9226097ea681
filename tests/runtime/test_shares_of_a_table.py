"""What each of several processes draws of a table of prompts."""

from pathlib import Path

from advanchor.evaluation.prompt_table import read_rows
from advanchor.evaluation.settings import SamplingSettings
from advanchor.runtime.drawing import Drawing, draw

TABLE = "prompt,seed,guidance\n" + "".join(f"a star,{n},{n}\n" for n in range(1, 5))  # a scale each: a group each


def test_a_share_is_every_nth_group_and_no_other(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text(TABLE)
    rows = tuple(read_rows(tmp_path / "prompts.csv", 3.0))
    drawing = Drawing(str(tiny_base), (), rows, str(tmp_path / "out"), SamplingSettings(steps=2))
    assert draw(drawing, 1, 3) == {"base": 1}
    assert [path.name for path in (tmp_path / "out" / "base").iterdir()] == ["000001.png"]
    assert draw(drawing, 0, 3) == {"base": 2} and draw(drawing, 2, 3) == {"base": 1}
