"""The arithmetic of the figures, by hand."""

import pytest

from advanchor.bench.scale import Sample, driver_ms, quarters


def test_the_drivers_time_per_task_and_by_quarters() -> None:
    """Eight tasks; the driver spends 10 ms on each of the first four, 20 ms on each of the others."""
    cpu = [0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.10, 0.12]
    samples = [Sample(wall_s=done, cpu_s=spent, done=done, gangs=1) for done, spent in enumerate(cpu)]
    assert driver_ms(samples) == pytest.approx(15)
    assert quarters(samples, 8) == pytest.approx([10, 10, 20, 20])
