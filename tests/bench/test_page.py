"""The page of a load test: complete, small, and safe whatever a server calls itself."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.bench import charts
from rtp_core.bench.client import Record
from rtp_core.bench.page import page
from rtp_core.bench.printable import printable
from rtp_core.bench.report import Report, Subject
from rtp_core.bench.service_level import serve_results
from rtp_core.bench.svg import Plane, short, tag, text, ticks
from rtp_core.bench.traffic import Traffic

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "' style='background:url(//evil.example)",
    "]]><svg/onload=alert(1)>",
    "&lt;script&gt;",
    "</title><meta http-equiv=refresh content='0;url=//evil.example'>",
    "a\x1b[2J\x00b\u202egnp.exe\u2028",
    "\ud800",
    "x" * 100_000,
]


def request(at, *, pieces=4, error=None, sent=True, wait=0.0):
    record = Record(at, pieces)
    if not sent:
        record.error = "not sent, the server is gone"
        return record
    record.sent_s = at + wait
    record.pieces_s = [record.sent_s + 0.1 + 0.02 * number for number in range(pieces)]
    record.end_s = record.pieces_s[-1] if pieces else record.sent_s + 0.05
    record.prompt_tokens, record.output_tokens = 7, pieces
    record.error, record.done = error, error is None
    return record


def run_of(*records):
    ended = max((one.end_s for one in records), default=101.0)
    return Traffic(list(records), 100.0, max(ended, 101.0), 0.1)


def made(traffic, *, model="tiny", params=None, machine=None, interrupted=False):
    report = Report("serve", Subject(model, "remote"), params or {"request_rate": 4.0})
    report.results = serve_results(traffic, {})
    report.interrupted = interrupted
    return page(report, traffic)


class Elements(HTMLParser):
    """Elements with attributes, and that all but void ones are closed in order."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, document):
        super().__init__()
        self.found, self.words, self._open = [], [], []
        self.feed(document)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def elements(document):
    return Elements(document)


MANY = run_of(*(request(100 + 0.1 * number, wait=0.01 * (number % 3)) for number in range(50)))


def test_it_has_everything_and_asks_nobody():
    document = made(MANY)
    read = elements(document)
    words = " ".join(read.words)
    for wanted in (
        "TTFT", "TPOT", "ITL", "E2E", "p99", "output tokens/s", "Time to first token",
        "End to end", "Output tokens a second", "Requests under way", "request_rate", "cores",
    ):  # fmt: skip
        assert wanted in words, wanted
    assert len([1 for name, _ in read.found if name == "svg"]) == 6
    assert not re.search(r"https?:|//|@import|url\(", document.replace("<!doctype html>", ""))
    assert not {"script", "link", "img", "iframe", "object"} & {name for name, _ in read.found}


def test_its_policy_forbids_what_an_escape_could_let_through():
    (policy,) = [one["content"] for _, one in elements(made(MANY)).found if one.get("http-equiv")]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "connect-src" not in policy


def test_it_has_two_colour_schemes_and_fits_a_phone():
    document = made(MANY)
    assert "prefers-color-scheme: dark" in document
    (viewport,) = [one for _, one in elements(document).found if one.get("name") == "viewport"]
    assert viewport["content"].startswith("width=device-width")
    style = document.partition("<style>")[2].partition("</style>")[0]
    used = {name for _, one in elements(document).found for name in one.get("class", "").split()}
    assert [name for name in used if f".{name}" not in style] == []
    colours = re.findall(r"var\((--\w+)\)", style)
    for part in style.split("prefers-color-scheme"):
        assert {name for name in set(colours) if f"{name}:" not in part} == set()


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_server_says_is_text(text):
    plain = elements(made(MANY))
    read = elements(
        made(MANY, model=text, params={"request_rate": text, text: 1, "goodput_ms": {text: text}})
    )
    names = [name for name, _ in read.found]
    rows = names.count("tr") - [name for name, _ in plain.found].count("tr")
    extra = [name for name in names if name not in ("tr", "td", "th")]
    assert extra == [name for name, _ in plain.found if name not in ("tr", "td", "th")]
    assert rows == 2
    assert all(not key.startswith("on") for _, one in read.found for key in one)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_is_of_bounded_size_and_has_no_control_characters(text):
    document = made(MANY, model=text)
    assert len(document) < 120_000
    assert all(one == "\n" or one.isprintable() for one in document)
    document.encode()


@given(st.text())
def test_printable_text_is_printable_and_keeps_what_is(given_text):
    shown = printable(given_text)
    assert shown.isprintable()
    if given_text.isprintable() and len(given_text) <= 300:
        assert shown == given_text


def test_errors_and_an_interrupt_are_told():
    failed = request(100.0, pieces=0, error="http 503")
    document = made(run_of(failed, request(100.5)), interrupted=True)
    words = " ".join(elements(document).words)
    assert "1 × http 503" in words
    assert "Interrupted" in words


def test_nothing_measured_is_no_chart_and_no_error():
    for traffic in (Traffic(), run_of(request(100.0, sent=False))):
        read = elements(made(traffic))
        assert "TTFT" in read.words
        assert len([1 for name, _ in read.found if name == "svg"]) <= 1


def test_the_page_stays_small_with_many_requests():
    many = run_of(*(request(100 + 0.001 * number, pieces=40) for number in range(5000)))
    document = made(many)
    assert len(document) < 250_000
    assert f"{charts.MOST_ROWS} of 5000 requests" in document


def bars(svg, kind):
    root = ElementTree.fromstring(svg)
    return [one for one in root.iter("rect") if one.get("class") == kind]


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200))
@settings(max_examples=60)
def test_every_value_is_in_a_bar_or_told_as_beyond(values):
    svg = charts.distribution(values, "x")
    counted = sum(int(bar.find("title").text.split()[0]) for bar in bars(svg, "first"))
    beyond = re.search(r"(\d+) more, up to", svg)
    assert counted + (int(beyond.group(1)) if beyond else 0) == len(values)
    for bar in bars(svg, "first"):
        assert 0 <= float(bar.get("x")) <= 360
        assert float(bar.get("height")) >= 0
        assert 0 <= float(bar.get("y")) <= 200


def test_a_long_tail_does_not_squeeze_the_rest():
    svg = charts.distribution([0.01] * 50 + [0.02] * 50 + [60.0], "x")
    assert "1 more, up to 6e+04 ms" in svg or "1 more, up to 60k ms" in svg
    assert len(bars(svg, "first")) == 2


def test_the_tokens_of_the_chart_are_those_that_came():
    traffic = run_of(*(request(100 + 0.05 * number, pieces=10) for number in range(20)))
    path = re.search(r'<path d="M([\d. L]+)" class="first line"', charts.throughput(traffic))
    points = [tuple(map(float, one.split())) for one in path.group(1).split(" L")]
    assert max(y for _, y in points) <= Plane(760, 200, 1, 1).bottom
    steps = {round(b[0] - a[0], 1) for a, b in itertools.pairwise(points)}
    assert max(steps) - min(steps) < 0.3


def test_the_timeline_tells_each_phase_of_a_request():
    traffic = run_of(
        request(100.0, wait=0.2),
        request(100.1, pieces=0, error="timeout"),
        request(100.2, pieces=2, error="connection lost"),
        request(100.3, sent=False),
    )
    svg = charts.timeline(traffic)
    assert len(bars(svg, "waiting")) == 1
    assert len(bars(svg, "until")) == 1
    assert len(bars(svg, "second")) == 1
    assert len(bars(svg, "failed")) == 1 + 2 + 1
    (waiting,), (until,) = bars(svg, "waiting"), bars(svg, "until")
    end = float(waiting.get("x")) + float(waiting.get("width"))
    assert float(until.get("x")) == pytest.approx(end, abs=0.1)
    told = [one.text for one in ElementTree.fromstring(svg).iter("title")]
    assert any("first token after 100 ms" in one for one in told)
    assert any("timeout" in one for one in told)


def test_requests_under_way_rise_and_fall():
    traffic = run_of(request(100.0), request(100.05), request(100.9))
    svg = charts.in_flight(traffic)
    assert 'aria-label="requests under way"' in svg


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e6), st.integers(1, 20))
def test_ticks_are_round_ascending_inside_and_not_too_many(low, span, most):
    low *= span  # an axis is no narrow window far from 0
    high = low + span
    found = ticks(low, high, most)
    assert len(found) <= most + 1
    assert found == sorted(set(found))
    assert all(low - 1e-6 * span <= one <= high + 1e-6 * span for one in found)
    if most >= 4:
        assert len(found) >= 2


@pytest.mark.parametrize("span", [0.0, float("nan"), float("inf")])
def test_a_plane_without_extent_has_one_tick(span):
    assert len(ticks(0.0, span)) == 1


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_texts_and_attributes_are_escaped(words):
    assert (ElementTree.fromstring(f"<g>{text(words, 1, 2)}</g>")[0].text or "") == words
    assert ElementTree.fromstring(tag("g", class_=words)).get("class") == words


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.25, "0.25"), (12.0, "12"), (12_000, "12k"), (999.5, "999.5")],
)
def test_short_numbers(value, shown):
    assert short(value) == shown
