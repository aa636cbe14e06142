"""The GPU bench runs end to end at a tiny size, so that it is ready when a GPU is at hand."""

from pathlib import Path

import pytest


@pytest.mark.parametrize("quantisation", ["none", "4bit"])
def test_the_gpu_bench_measures_every_row_at_a_tiny_size(quantisation: str, tmp_path: Path) -> None:
    from bench.gpu import RESIDENT, measure

    rows = measure(quantisation, "cpu", True, tmp_path)
    assert len(rows) == 5
    assert all(row.ours > 0 and row.peer > 0 for row in rows)
    assert any(str(RESIDENT) in row.what for row in rows)
