"""The published bases' sizes, which their makers state, and what a table of them says."""

import re
from pathlib import Path

import pytest

from advanchor.bench.memory import duration, measure

WEIGHTS = {  # of denoiser and text encoders; deltas as docs/bases.md's readers have them
    "SDXL": (2_567_463_684, 123_060_480 + 694_659_840, 340_787_200 + 2816 * 1280),
    "FLUX.1-dev": (11_901_408_320, 123_060_480 + 4_762_310_656, 4096 * 3072 + 768 * 3072),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_sizes_are_the_published_ones(name: str) -> None:
    memory = measure(name, 512, 4, checkpointed=True)
    denoiser, encoders, deltas = WEIGHTS[name]
    assert memory.backbone == 2 * denoiser
    assert memory.encoders == pytest.approx(2 * encoders, rel=1e-5)  # but for buffers of positions
    assert memory.training == 24 * deltas
    assert memory.activations and memory.rows == 8 and 0 < memory.activations / 8 < 1e9


@pytest.mark.slow
def test_hours_are_operations_over_what_gpus_do() -> None:
    """By hand: 6,960 passes forward, 4,800 back at twice the price, and 4,800 again for checkpointing."""
    said = duration(Path("configs/sdxl.yaml"), "SDXL", 1024, 300, 8, 400.0)
    found = re.search(r"(\d+\.\d) hours \(21,360 forward-equivalents of (\d+\.\d\d) TFLOP", said)
    assert found
    hours, each = map(float, found.groups())
    assert 5 < each < 8  # published: some 6 TFLOP
    passes = 6_960 + 2 * 4_800 + 4_800
    assert hours == pytest.approx(300 * passes * each / (8 * 400) / 3600, abs=0.06)
