from __future__ import annotations

import runpy
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "scheduler_simulation.py"


def test_the_simulation_measures_pure_decoding_with_and_without_the_cache():
    simulation = runpy.run_path(str(BENCH))
    result = simulation["compare"](4, 3, 16)
    assert result["num_sequences"] == 4
    assert result["plain_rows_per_s"] > 1000
    assert result["cached_rows_per_s"] > 1000
    assert all(cost > 0 for cost in simulation["object_costs"](100).values())
