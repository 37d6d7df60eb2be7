from __future__ import annotations

import pytest

from rtp_core.observe.latency import LatencyWindow


def test_an_empty_window_is_zero():
    assert LatencyWindow().summary() == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "n": 0}


def test_percentiles_are_samples():
    window = LatencyWindow()
    for value in range(100, 0, -1):
        window.add(float(value))
    assert window.summary() == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "n": 100}


@pytest.mark.parametrize("size", [1, 3])
def test_only_the_newest_samples_count(size):
    window = LatencyWindow(size)
    for value in (9.0, 9.0, 9.0, 1.0, 1.0, 1.0):
        window.add(value)
    expected = {"p50": 1.0, "p95": 1.0, "p99": 1.0, "n": size}
    assert window.summary() == window.take_fresh() == expected


def test_fresh_samples_are_those_since_the_last_call():
    window = LatencyWindow()
    assert window.take_fresh() is None
    window.add(2.0)
    assert window.take_fresh() == {"p50": 2.0, "p95": 2.0, "p99": 2.0, "n": 1}
    window.add(4.0)
    assert window.take_fresh() == {"p50": 4.0, "p95": 4.0, "p99": 4.0, "n": 1}
    assert window.take_fresh() is None
    assert window.summary()["n"] == 2
