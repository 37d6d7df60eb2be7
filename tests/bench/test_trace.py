"""Traces: hostile lines are refused by number, and what is shared stays shared."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.bench.trace import (
    Arrival,
    Scale,
    ideal_hit_rate,
    parse_trace,
    read_trace,
    scaled,
    tokens_of,
)
from rtp_core.errors import ConfigError

GOOD = {"timestamp": 5, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}
IDS = tuple(range(100, 400))


def line(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def test_a_trace_starts_at_zero_and_stops_at_its_limit():
    lines = [line(), b"\n", line(timestamp=1505), line(timestamp=9000), b"rubbish"]
    found = list(parse_trace(lines, 2))
    assert [one.at_s for one in found] == [0.0, 1.5]
    assert found[0].hash_ids == (1, 2)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[1]", "object"),
        (b"[" * 100_000, "JSON"),
        (b"9" * 5_000_000, "longer"),
        (line(timestamp="5"), "timestamp"),
        (line(timestamp=True), "timestamp"),
        (line(timestamp=-1), "timestamp"),
        (line(timestamp=float("nan")), "timestamp"),
        (line(timestamp=float("inf")), "timestamp"),
        (line(timestamp=4), "before"),
        (line(input_length=0), "input_length"),
        (line(input_length=2**40), "input_length"),
        (line(input_length=6.5), "input_length"),
        (line(output_length=None), "output_length"),
        (line(output_length=True), "output_length"),
        (line(hash_ids=[1]), "2 were expected"),
        (line(hash_ids=[1, 2, 3]), "2 were expected"),
        (line(hash_ids="12"), "hash_ids"),
        (line(hash_ids=[1, -2]), "hash_ids"),
        (line(hash_ids=[1, "2"]), "hash_ids"),
        (b"{}", "timestamp"),
    ],
)
def test_a_hostile_line_is_refused_by_its_number(bad, word):
    with pytest.raises(ConfigError, match="line 2") as caught:
        list(parse_trace([line(), bad], None))
    assert word in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nothing"):
        read_trace(tmp_path / "nothing.jsonl", None)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no request"):
        read_trace(tmp_path / "empty.jsonl", None)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6),
    st.integers(0, 6),
    st.sampled_from([1.0, 0.5, 0.1, 0.02, 1.7]),
)
def test_equal_ids_are_equal_tokens_and_lengths_hold(ids, num_shared, factor):
    scale = Scale(length=factor)
    other = [*ids[:num_shared], *(one + 1000 for one in ids[num_shared:])]
    length = 512 * len(ids) - 100
    first, second = (
        tokens_of(one, scale.block_tokens, IDS)
        for one in scaled([Arrival(0, length, 1, tuple(x)) for x in (ids, other)], scale)
    )
    assert len(first) == len(second) == max(1, round(length * factor))
    shared = min(num_shared * scale.block_tokens, len(first), len(ids) * scale.block_tokens)
    assert first[:shared] == second[:shared]
    if num_shared < len(ids) and shared + 20 < len(first):
        assert first[shared : shared + 20] != second[shared : shared + 20]


def test_the_ideal_cache_counts_prefixes_only():
    asks = [Arrival(0, 1024, 1, (1, 2)), Arrival(1, 1024, 1, (1, 3)), Arrival(2, 1024, 1, (3, 2))]
    assert ideal_hit_rate(asks, 512) == pytest.approx(512 / 3072)
    assert ideal_hit_rate([*asks, asks[0]], 512) == pytest.approx((512 + 1024) / 4096)
