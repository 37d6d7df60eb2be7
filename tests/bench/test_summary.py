"""Summaries against NumPy and their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.bench.summary import percentiles, quantile, spread

samples = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


@given(samples, st.floats(0, 1))
def test_a_quantile_is_numpys_and_lies_among_the_samples(values, share):
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert ordered[0] <= found <= ordered[-1]
    assert found == pytest.approx(float(np.quantile(values, share)), rel=1e-9, abs=1e-9)


@given(samples)
def test_percentiles_ascend_and_do_not_depend_on_the_order(values):
    found = percentiles(values)
    points = [found[name] for name in ("p50", "p90", "p95", "p99")]
    assert points == sorted(points)
    assert found == percentiles(sorted(values, reverse=True))
    assert found["n"] == len(values)
    assert min(values) <= found["mean"] * (1 + 1e-12)
    assert found["mean"] <= max(values) * (1 + 1e-12)


@given(samples)
def test_a_spread_encloses_its_median(values):
    found = spread(values)
    assert found["p5"] <= found["median"] <= found["p95"]
    assert found["median"] == pytest.approx(float(np.median(values)))


def test_nothing_measured_is_none_and_not_zero():
    assert spread([]) == {"median": None, "p5": None, "p95": None, "n": 0}
    assert set(percentiles([]).values()) == {None, 0}
