"""The fusion bench's own arithmetic, and its scale part with the real shapes and few files."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from advanchor.artifacts import ArtifactError, from_bytes, to_bytes, views
from advanchor.batch.retain import Retain, weighted_prompts
from advanchor.bench import fusion_scale
from advanchor.bench.fusion import EDITS, edit_called, harmonic, hidden_names, table
from advanchor.cli import app
from advanchor.models.vocabulary import mentions


def test_the_harmonic_mean_by_hand() -> None:
    """ACC_e 20 %, ACC_s 40 %: 2 / (1 / .8 + 1 / .4) = 2 / 3.75."""
    assert harmonic(0.2, 0.4) == pytest.approx(2 / 3.75)
    assert harmonic(1.0, 0.5) == harmonic(0.5, 0.0) == 0.0


def test_hidden_names_are_half_of_the_rest_and_no_retained_prompt_has_one() -> None:
    hidden = hidden_names(["mira morwin"])
    assert len(hidden) == 99 and "mira morwin" not in hidden
    everything = weighted_prompts(Retain(presets=("gallery/captions",), count=500), [])
    told = weighted_prompts(Retain(presets=("gallery/captions",), count=500, exclude=tuple(hidden)), [])
    assert any(mentions(prompt, name) for prompt in everything for name in hidden)
    assert told and not any(mentions(prompt, name) for prompt in told for name in hidden)


def test_a_way_of_fusing_is_named_with_its_settings() -> None:
    assert edit_called("joint UCE") is EDITS["joint UCE"]
    assert callable(edit_called("closed_form, ridge=1e-3, told")) and callable(edit_called("neurons, threshold=0.6"))
    assert callable(edit_called("distill, distill.steps=20")) and edit_called("distill+neurons")
    with pytest.raises(ValueError, match="stepps"):
        edit_called("distill, distill.stepps=20")
    with pytest.raises(ValueError, match=r"'closed from' is not one of .*did you mean 'closed_form'"):
        edit_called("closed from")
    with pytest.raises(ValueError, match="rigde"):
        edit_called("closed_form, rigde=1e-3")


def test_what_cannot_be_fused_is_said_in_a_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["bench", "fusion", str(tmp_path), "--method", "neurons", "-o", str(tmp_path / "out")]
    )
    assert done.exit_code == 2 and "neither a run directory with finished tasks nor a fused model" in done.stderr


def test_a_table_shows_percent_and_h_o() -> None:
    row = {
        "erased": 6,
        "method": "closed_form",
        "acc_e": 0.052,
        "acc_s": 0.959,
        "h_o": 0.9533,
        "object": 1.0,
        "style": None,
    }
    assert "| 6 | closed_form | 5.2 | 95.9 | 0.953 | 100.0 | – |" in table([row])


def test_sizes_are_stable_diffusion_1_4s() -> None:
    shapes = fusion_scale.projections()
    assert len(shapes) == 32 and sum(rows * width for rows, width in shapes.values()) * 4 == 76_677_120


def test_scale_reads_its_files_over_and_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At sizes of its own: seven concepts from three files."""
    monkeypatch.setattr(fusion_scale, "D", 16)
    monkeypatch.setattr(fusion_scale, "BLOCKS", {8: 1, 24: 2})
    found = fusion_scale.run(tmp_path, files=3, counts=[7])
    closed, anchors = found["rows"]
    size = (tmp_path / "statistics-0.safetensors").stat().st_size
    assert size > (2 * (8 + 2 * 24) + 16) * 16 * 4 and len(list(tmp_path.iterdir())) == 3
    assert closed["bytes_per_s"] * (closed["seconds"] - closed["solving_s"]) == pytest.approx(7 * size, rel=0.05)
    assert closed["concepts"] == anchors["concepts"] == 7 and closed["share_of_disk"] > 0


def test_views_are_what_unpacking_gives_and_refuse_rubbish() -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.arange(4, dtype=torch.float64),
        "c": torch.ones(2, dtype=torch.float16),
    }
    data = to_bytes(tensors, {})
    found, expected = views(data, "it"), from_bytes(data, "it")[0]
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)
    for rubbish in (b"", b"rubbish of any length", data[:-5]):
        with pytest.raises(ArtifactError, match="it"):
            views(rubbish, "it")
