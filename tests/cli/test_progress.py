"""Progress: what a terminal shows, what a log tells, and what speed means."""

from __future__ import annotations

import io
import logging

import pytest

from rtp_core.cli.progress import ProgressBar

MB = 10**6


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def shown(stream):
    return stream.getvalue().split("\r")[1:]


def run(bar, clock, steps, total):
    for seconds, done in steps:
        clock.now_s = 100.0 + seconds
        bar(done, total)


def test_a_terminal_shows_amounts_speed_and_time_left(clock):
    stream = Terminal()
    steps = [(0, 0), (1, 50 * MB), (2, 100 * MB)]
    run(ProgressBar("loading", stream, clock), clock, steps, 1000 * MB)
    last = shown(stream)[-1]
    assert last.startswith("loading [###...")
    assert "10 %  100 of 1000 MB  50 MB/s, 18 s left" in last


def test_minutes_are_written_as_such(clock):
    stream = Terminal()
    run(ProgressBar("loading", stream, clock), clock, [(0, 0), (1, MB)], 126 * MB)
    assert "2:05 min left" in shown(stream)[-1]


def test_the_end_closes_the_line_once(clock):
    stream = Terminal()
    run(ProgressBar("loading", stream, clock), clock, [(0, 0), (1, 9), (2, 9), (3, 9)], 9)
    assert stream.getvalue().count("\n") == 1
    assert "100 %" in shown(stream)[-1]
    assert "left" not in shown(stream)[-1]


def test_a_load_of_nothing_is_done(clock):
    stream = Terminal()
    ProgressBar("loading", stream, clock)(0, 0)
    assert "100 %" in stream.getvalue()


def test_redrawing_is_bounded(clock):
    stream = Terminal()
    steps = [(number / 1000, number) for number in range(1000)]
    run(ProgressBar("loading", stream, clock), clock, steps, 10**6)
    assert len(shown(stream)) <= 11


def test_storage_that_stalls_shows_within_seconds(clock):
    stream = Terminal()
    steps = [(0, 0), (1, 500 * MB), *((1 + number, 500 * MB) for number in range(1, 8))]
    run(ProgressBar("loading", stream, clock), clock, steps, 1000 * MB)
    assert "0 MB/s, unknown time left" in shown(stream)[-1]


def test_a_log_gets_a_line_every_five_seconds_and_nothing_on_the_stream(clock, caplog):
    stream = io.StringIO()
    bar = ProgressBar("loading", stream, clock)
    with caplog.at_level(logging.INFO, "rtp.loading"):
        run(bar, clock, [(n / 2, n * MB) for n in range(25)], 100 * MB)
    assert stream.getvalue() == ""
    assert [record.message for record in caplog.records] == [
        "loading bytes=10000000 of_bytes=100000000 mb_per_s=2.000 left_s=45.000",
        "loading bytes=20000000 of_bytes=100000000 mb_per_s=2.000 left_s=40.000",
    ]


def test_a_quick_load_logs_nothing(clock, caplog):
    with caplog.at_level(logging.INFO, "rtp.loading"):
        run(ProgressBar("loading", io.StringIO(), clock), clock, [(0, 0), (1, 9)], 9)
    assert caplog.records == []
