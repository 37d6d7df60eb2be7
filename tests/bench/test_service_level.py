"""What counts as good, and that nothing that failed is hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.bench.client import Record
from rtp_core.bench.service_level import is_good, parse_goals, serve_results, tpot_s
from rtp_core.bench.traffic import Traffic
from rtp_core.errors import ConfigError


def record(first=0.1, gap=0.02, tokens=5, *, error=None, done=True, due=0.0):
    pieces = [due + first + gap * number for number in range(tokens)]
    end = pieces[-1] if pieces else due + first
    return Record(
        due, tokens, due, pieces, end, prompt_tokens=7, output_tokens=tokens, error=error, done=done
    )


def traffic(records, *, interrupted=False):
    return Traffic(records, began_s=0.0, ended_s=2.0, interrupted=interrupted)


def test_goals_are_milliseconds():
    assert parse_goals(["ttft:200", "tpot:50.5"]) == {"ttft": 0.2, "tpot": 0.0505}


@pytest.mark.parametrize(
    "word", ["ttft", "ttft:", "ttft:0", "ttft:-1", "ttft:nan", "ttft:inf", "itl:5", ":5", ""]
)
def test_a_goal_that_is_none_is_refused(word):
    with pytest.raises(ConfigError, match="--goodput"):
        parse_goals([word])


def test_a_goal_given_twice_is_refused():
    with pytest.raises(ConfigError, match="once"):
        parse_goals(["ttft:1", "ttft:2"])


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_good_request_meets_every_goal(first, gap, most_first, most_gap):
    one = record(first, gap)
    goals = {"ttft": most_first, "tpot": most_gap}
    assert is_good(one, goals) == (
        one.pieces_s[0] - one.sent_s <= most_first and tpot_s(one) <= most_gap
    )


def test_one_token_has_no_tpot_and_meets_that_goal():
    assert tpot_s(record(tokens=1)) is None
    assert is_good(record(tokens=1), {"tpot": 1e-9})


def test_no_content_meets_no_goal_for_the_first_token():
    assert not is_good(record(tokens=0), {"ttft": 10.0})


def test_a_failed_request_is_never_good():
    assert not is_good(record(error="http 500", done=False), {})


def test_several_tokens_in_a_piece_count_in_tpot():
    one = record(tokens=3, gap=0.1)
    one.output_tokens = 11
    assert tpot_s(one) == pytest.approx(0.2 / 10)


def test_errors_are_counted_by_kind_and_kept_out_of_latencies():
    records = [
        record(),
        record(error="http 503", done=False),
        record(error="http 503", done=False),
        record(error="timeout", done=False),
        record(done=False),
    ]
    found = serve_results(traffic(records), {})
    assert found["errors"] == 4
    assert found["error_kinds"] == {"http 503": 2, "timeout": 1, "no end": 1}
    assert found["completed"] == 1
    assert found["ttft_s"]["n"] == found["e2e_s"]["n"] == 1
    assert found["requests_per_s"] == found["goodput_requests_per_s"] == 0.5
    assert found["output_tokens_per_s"] == 2.5
    assert found["total_tokens_per_s"] == 6.0


def test_what_an_interrupt_cut_is_unfinished_and_no_error():
    found = serve_results(traffic([record(), record(done=False)], interrupted=True), {})
    assert found["errors"] == 0
    assert found["unfinished"] == 1


def test_short_answers_are_told():
    one = record()
    one.asked_tokens = 9
    assert serve_results(traffic([one, record()]), {})["short_answers"] == 1


def test_no_requests_give_no_numbers():
    found = serve_results(Traffic(), {})
    assert found["ttft_s"]["p99"] is None
    assert found["requests_per_s"] is None
