"""What a person reads: units, gaps, interrupts, and nothing lost."""

from __future__ import annotations

from rtp_core.bench.report import Report, Subject
from rtp_core.bench.summary import percentiles, spread
from rtp_core.bench.table import render


def told(results, *, interrupted=False):
    report = Report("serve", Subject("tiny", "cpu"), {"rate": None, "goals": {"ttft": 2.0}})
    report.results = results
    report.interrupted = interrupted
    return render(report.as_json())


def line_of(text, word):
    (line,) = (line for line in text.splitlines() if line.startswith(word))
    return line.split()


def test_seconds_become_milliseconds_and_rates_stay():
    text = told(
        {
            "ttft_s": percentiles([0.25, 0.25]),
            "host_overhead_s_per_step": spread([0.0025]),
            "requests_per_s": 1234.5,
            "errors": 3,
        }
    )
    assert line_of(text, "ttft")[1:4] == ["[ms]", "250", "250"]
    assert line_of(text, "ttft")[-1] == "2"
    assert line_of(text, "host_overhead_per_step")[1:3] == ["[ms]", "2.5"]
    assert line_of(text, "requests_per_s")[1] in ("1,234", "1,235")
    assert line_of(text, "errors")[1] == "3"


def test_what_was_not_measured_is_a_dash():
    text = told({"ttft_s": spread([]), "share": None})
    assert line_of(text, "ttft")[2:] == ["-", "-", "-", "0"]
    assert line_of(text, "share") == ["share", "-"]


def test_an_interrupt_and_the_load_are_told():
    assert "INTERRUPTED" in told({}, interrupted=True)
    assert "INTERRUPTED" not in told({})
    assert "load average" in told({})


def test_rivals_are_told_with_their_reasons():
    text = told({"against": {"a": {"skipped": "not installed"}, "b": {"ttft_ratio": {"min": 2.0}}}})
    assert "not installed" in text
    assert "ttft_ratio" in text
