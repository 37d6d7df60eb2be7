"""Phases of a start: without gaps, in one clock, safe to print."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from rtp_core.engine.services import Stopwatch
from rtp_core.observe.timeline import (
    Phase,
    Timeline,
    as_json,
    log_line,
    process_started_s,
    table,
)


def laps(*times):
    return Stopwatch(iter(times).__next__)


def test_laps_leave_no_gap():
    watch = laps(10.0, 11.0, 14.0)
    watch.lap("headers")
    watch.lap("weights", 500, "mmap")
    line = watch.timeline
    assert line.phases == (Phase("headers", 1.0), Phase("weights", 3.0, 500, "mmap"))
    assert (line.began_s, line.seconds, line.ended_s) == (10.0, 4.0, 14.0)


def test_what_was_before_and_after_is_put_around():
    line = Timeline(10.0, (Phase("load", 2.0),))
    whole = line.after("imports", 7.0).after("process", 6.5).until("server", 12.5)
    assert [(one.name, one.seconds) for one in whole.phases] == [
        ("process", 0.5), ("imports", 3.0), ("load", 2.0), ("server", 0.5),
    ]  # fmt: skip
    assert whole.seconds == pytest.approx(6.0)
    assert whole.began_s == 6.5


def test_clocks_that_disagree_never_make_a_phase_negative():
    line = Timeline(10.0, (Phase("load", 2.0),))
    assert line.after("imports", 10.5).phases[0].seconds == 0.0
    assert line.until("server", 11.0).phases[-1].seconds == 0.0


def test_an_engine_without_phases_has_no_timeline():
    empty = Timeline()
    assert empty.after("imports", 1.0) == empty
    assert empty.until("server", 5.0) == empty
    assert as_json(empty) is None


def test_the_log_has_one_line_and_the_table_a_line_a_phase():
    line = Timeline(0.0, (Phase("kv-pool", 0.25), Phase("weights", 1.5, 2_000_000, "file order\n")))
    text = log_line(line)
    assert text.startswith("start_timeline total_s=1.750 kv_pool_s=0.250 weights_s=1.500")
    assert "weights_bytes=2000000" in text
    assert "\n" not in text
    rows = table(Timeline(0.0, line.phases[:1])).splitlines()
    assert rows[1].split() == ["kv-pool", "0.250", "0.250"]
    assert as_json(line)["total_s"] == 1.75
    assert as_json(line)["phases"][1]["bytes"] == 2_000_000


def test_work_beside_others_is_in_no_sum_and_says_when_it_began():
    line = Timeline(
        10.0,
        (
            Phase("compiling", 2.0),
            Phase("weights", 2.5, 1000, "mmap", began_s=10.25),
            Phase("weights-rest", 1.0),
        ),
    )
    whole = line.after("imports", 9.0)
    assert (line.seconds, line.ended_s, whole.seconds) == (3.0, 13.0, 4.0)
    rows = table(whole).splitlines()
    assert rows[3].split()[:2] == ["weights", "2.500"]
    assert rows[3].endswith("beside, from 1.250")
    assert rows[4].split() == ["weights-rest", "1.000", "4.000"]
    assert "weights_beside_from_s=1.250" in log_line(whole)
    assert [one["beside_from_s"] for one in as_json(whole)["phases"]] == [None, None, 1.25, None]


def test_a_process_knows_when_it_was_started():
    before = time.monotonic()
    probe = (
        "import time; time.sleep(0.3)\nfrom rtp_core.observe.timeline import process_started_s\n"
        "print(process_started_s(), time.monotonic())"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    started, now = map(float, done.stdout.split())
    assert before - 0.05 <= started <= now - 0.25
    assert process_started_s() < before
