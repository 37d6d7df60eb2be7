"""The page's history: one row a second, with rates of what happened and nothing where none did."""

from __future__ import annotations

from rtp_core.observe.snapshot import EngineStats
from rtp_core.server.records import History, Latencies


def test_a_rate_without_events_is_unknown_and_not_zero():
    history = History()
    history.add(1.0, EngineStats(), Latencies())
    history.add(2.0, EngineStats(prefix_queries=10, prefix_hits=0), Latencies())
    first, second = history.rows()
    assert first["prefix_hit_rate"] is None
    assert second["prefix_hit_rate"] == 0.0
    assert second["spec_acceptance"] is None


def test_each_row_has_the_latencies_of_its_own_second():
    history, latencies = History(), Latencies()
    latencies.ttft.add(0.5)
    history.add(1.0, EngineStats(), latencies)
    history.add(2.0, EngineStats(), latencies)
    first, second = history.rows()
    assert first["ttft_s"] == {"p50": 0.5, "p95": 0.5, "p99": 0.5, "n": 1}
    assert first["itl_s"] is None
    assert second["ttft_s"] is None


def test_rows_say_what_lies_in_the_cache():
    history = History()
    stats = EngineStats(blocks={"device/int8": 3, "host/int4": 2}, cached_blocks={"host/int4": 5})
    history.add(1.0, stats, Latencies())
    (row,) = history.rows()
    assert row["blocks"] == {"device/int8": 3, "host/int4": 2}
    assert row["cached_blocks"] == {"host/int4": 5}


def test_rows_since_a_time_are_the_newest():
    history = History()
    for second in range(1, 6):
        history.add(float(second), EngineStats(), Latencies())
    assert [row["t_unix_s"] for row in history.rows(3.5)] == [4.0, 5.0]
    assert len(history.rows()) == 5
