"""The charts of a load test: distributions, rates over time, a row a request."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from rtp_core.bench.client import Record
from rtp_core.bench.service_level import e2e_s, ttft_s
from rtp_core.bench.summary import quantile
from rtp_core.bench.svg import BOTTOM, LEFT, TOP, Plane, short, text, ticks
from rtp_core.bench.traffic import Traffic

_WIDTH, _HEIGHT = 360, 200
_WIDE = 760
_BINS = 36
_BUCKETS = 90
_ROW = 9
_FAR, _NEAR = 0.4, 0.9
"""A distribution begins at 0 unless its least value is this far from it; then just before that."""
MOST_ROWS = 160
"""Requests of the timeline; of more, evenly spread ones are shown."""


def distribution(seconds: Sequence[float], name: str) -> str:
    """A histogram in milliseconds with its median and 99th percentile; empty if there is none.

    A long tail is cut off and told, so that it does not squeeze the rest.
    """
    if not seconds:
        return ""
    ordered = sorted(1e3 * one for one in seconds)
    p50, p99 = quantile(ordered, 0.5), quantile(ordered, 0.99)
    high = min(ordered[-1], 1.5 * p99) or 1.0
    low = _NEAR * ordered[0] if ordered[0] > _FAR * high else 0.0
    edges = [low + (high - low) * number / _BINS for number in range(_BINS + 1)]
    edges[-1] = high
    below = [bisect_right(ordered, edge) for edge in edges]
    counts = [b - a for a, b in itertools.pairwise([0, *below[1:]])]
    plane = Plane(_WIDTH, _HEIGHT, high, max(*counts, 1) * 1.3, low)
    bars = [
        plane.bar(start, end, 0, count, "first", f"{count} from {short(start)} to {short(end)} ms")
        for (start, end), count in zip(itertools.pairwise(edges), counts, strict=True)
        if count
    ]
    marks = [plane.mark(p50, f"p50 {short(p50)}"), plane.mark(p99, f"p99 {short(p99)}", row=1)]
    beyond = len(ordered) - below[-1]
    unit = f"{beyond} more, up to {short(ordered[-1])} ms" if beyond else "ms"
    return plane.drawing([*plane.frame(unit), *bars, *marks], f"distribution of {name}")


def throughput(traffic: Traffic) -> str:
    """Tokens a second that arrived, over the time of the run; empty if none did."""
    arrived = sorted(_tokens(traffic))
    if not arrived or traffic.seconds <= 0:
        return ""
    width = _bucket_s(traffic.seconds)
    sums = [0.0] * (int(traffic.seconds / width) + 1)
    for at, tokens in arrived:
        sums[min(max(int(at / width), 0), len(sums) - 1)] += tokens / width
    points = [((number + 0.5) * width, rate) for number, rate in enumerate(sums)]
    plane = Plane(_WIDE, _HEIGHT, max(len(sums) * width, traffic.seconds), max(sums) * 1.1)
    parts = [*plane.frame("s"), plane.area(points, "first")]
    return plane.drawing(parts, "output tokens a second over time")


def in_flight(traffic: Traffic) -> str:
    """Requests under way over time; empty if none was sent."""
    changes = sorted(_changes(traffic))
    if not changes:
        return ""
    points, now = [(0.0, 0.0)], 0
    for at, change in changes:
        points.append((at, now))
        now += change
        points.append((at, now))
    points = _thinned(points)
    plane = Plane(_WIDE, _HEIGHT, max(traffic.seconds, changes[-1][0]), _most(points) * 1.1)
    return plane.drawing([*plane.frame("s"), plane.area(points, "second")], "requests under way")


def timeline(traffic: Traffic) -> str:
    """A row a request: waiting in the client, until the first token, tokens, failures."""
    rows = _spread(traffic.records)
    if not rows:
        return ""
    height = TOP + _ROW * len(rows) + BOTTOM
    last = max(one.end_s or one.due_s for _, one in rows) - traffic.began_s
    plane = Plane(_WIDE, height, max(last, traffic.seconds, 1e-3), len(rows))
    parts = list(plane.frame("s", rows=True))
    for row, (number, record) in enumerate(rows):
        top = len(rows) - row
        words = _told(number, record, traffic.began_s)
        for start, end, kind in _spans(record, traffic.began_s):
            parts.append(plane.bar(start, end, top - 0.85, top - 0.1, kind, words))
    for row in ticks(0, len(rows) - 1, 8):
        number = rows[int(row)][0]
        parts.append(text(str(number), LEFT - 5, plane.y(len(rows) - int(row) - 0.85), "end"))
    return plane.drawing(parts, "timeline of requests")


def _tokens(traffic: Traffic) -> Iterator[tuple[float, float]]:
    """(seconds from the start, tokens) of each piece; a piece has its share of the answer."""
    for one in traffic.records:
        each = max(one.output_tokens / len(one.pieces_s), 1.0) if one.pieces_s else 0.0
        yield from ((at - traffic.began_s, each) for at in one.pieces_s)


def _changes(traffic: Traffic) -> Iterator[tuple[float, int]]:
    for one in traffic.records:
        if one.sent_s:
            yield one.sent_s - traffic.began_s, 1
            yield (one.end_s or traffic.ended_s) - traffic.began_s, -1


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most some hundreds of points: of each group the highest stays."""
    size = -(-len(points) // (4 * _BUCKETS))
    groups = (points[at : at + size] for at in range(0, len(points), size))
    return [max(group, key=lambda point: point[1]) for group in groups]


def _most(points: Sequence[tuple[float, float]]) -> float:
    return max(1.0, *(count for _, count in points))


def _bucket_s(seconds: float) -> float:
    """A round width of which there are at most `_BUCKETS`."""
    found = ticks(0, seconds, _BUCKETS)
    return found[1] if len(found) > 1 else seconds


def _spread(records: Sequence[Record]) -> list[tuple[int, Record]]:
    numbered = list(enumerate(records))
    step = max(1.0, len(numbered) / MOST_ROWS)
    return [numbered[int(at * step)] for at in range(min(len(numbered), MOST_ROWS))]


def _spans(record: Record, began_s: float) -> Iterator[tuple[float, float, str]]:
    due, sent = record.due_s - began_s, record.sent_s - began_s
    if not record.sent_s:
        yield due, due, "failed"
        return
    if sent > due:
        yield due, sent, "waiting"
    end = (record.end_s or record.sent_s) - began_s
    first = record.pieces_s[0] - began_s if record.pieces_s else end
    yield sent, first, "until" if record.error is None else "failed"
    if record.pieces_s:
        yield first, end, "second" if record.error is None else "failed"


def _told(number: int, record: Record, began_s: float) -> str:
    if not record.sent_s:
        return f"request {number}: {record.error or 'not sent'}"
    first = ttft_s(record)
    told = [f"request {number}: sent at {record.sent_s - began_s:.2f} s"]
    if first is not None:
        told.append(f"first token after {1e3 * first:.0f} ms")
    if record.end_s:
        told.append(f"end after {1e3 * e2e_s(record):.0f} ms")
    told.append(f"{record.prompt_tokens} + {record.output_tokens} tokens")
    if record.error is not None:
        told.append(record.error)
    return ", ".join(told)
