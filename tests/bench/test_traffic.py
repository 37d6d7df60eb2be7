"""Arrivals, and the client against a stub server in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.bench.client import Target, fetch
from rtp_core.bench.service_level import serve_results
from rtp_core.bench.traffic import Route, Send, arrivals, drive
from rtp_core.errors import ConfigError, RtpError

STUB = Path(__file__).with_name("streaming_server.py")


def take(rate, seed, count):
    return list(itertools.islice(arrivals(rate, seed), count))


@given(st.floats(0.01, 1e4), st.integers(0, 2**31 - 1))
def test_arrivals_repeat_with_their_seed_and_ascend(rate, seed):
    times = take(rate, seed, 50)
    assert times == take(rate, seed, 50)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times != take(rate, seed + 1, 50)


def test_gaps_are_exponential_with_the_rate_asked_for():
    times = take(4.0, 7, 20_000)
    gaps = [b - a for a, b in itertools.pairwise([0.0, *times])]
    assert statistics.fmean(gaps) == pytest.approx(0.25, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.05)
    assert sum(gap > 0.25 for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.02)


@pytest.mark.parametrize("shape", [0.25, 4.0])
def test_burstiness_keeps_the_rate_and_changes_the_spread(shape):
    times = list(itertools.islice(arrivals(4.0, 7, shape), 40_000))
    gaps = [b - a for a, b in itertools.pairwise([0.0, *times])]
    assert statistics.fmean(gaps) == pytest.approx(0.25, rel=0.03)
    spread = statistics.stdev(gaps) / statistics.fmean(gaps)
    assert spread == pytest.approx(shape**-0.5, rel=0.05)


def test_an_infinite_rate_is_all_at_once():
    assert take(float("inf"), 1, 3) == [0.0, 0.0, 0.0]


@contextmanager
def stub(*arguments):
    command = [sys.executable, str(STUB), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Target("127.0.0.1", int(process.stdout.readline()))
        finally:
            process.kill()


def sends(count, gap_s=0.0, tokens=3):
    return [Send(number * gap_s, tokens, lambda: b"{}") for number in range(count)]


def route(target, **more):
    options = {"timeout_s": 20.0, "max_concurrency": None, **more}
    return Route(target, "/v1/completions", **options)


def test_every_token_and_time_is_recorded():
    with stub(3) as target:
        traffic = asyncio.run(drive(route(target), sends(20)))
    assert all(one.done and len(one.pieces_s) == one.output_tokens == 3 for one in traffic.records)
    for one in traffic.records:
        assert traffic.began_s <= one.sent_s <= one.pieces_s[0] <= one.end_s <= traffic.ended_s


def test_requests_leave_at_their_times_and_not_before():
    with stub(2) as target:
        traffic = asyncio.run(drive(route(target), sends(5, gap_s=0.05)))
    assert all(one.sent_s >= one.due_s for one in traffic.records)
    assert traffic.records[-1].due_s - traffic.began_s == pytest.approx(0.2)


def test_a_bound_on_concurrency_is_kept():
    with stub(50) as target:
        traffic = asyncio.run(drive(route(target, max_concurrency=2), sends(12)))
    spans = [(one.sent_s, one.end_s) for one in traffic.records]
    for begin, _ in spans:
        assert sum(a <= begin < b for a, b in spans) <= 2


def test_a_server_that_dies_is_counted_and_ends_the_run():
    with stub(3, 4) as target:
        traffic = asyncio.run(drive(route(target, max_concurrency=1), sends(40)))
    found = serve_results(traffic, {})
    assert found["completed"] == 4
    assert found["errors"] == 36
    assert sum(found["error_kinds"].values()) == 36
    assert found["error_kinds"]["not sent, the server is gone"] >= 25


def test_a_timeout_is_an_error():
    async def never(reader, writer):
        await reader.read(100_000)
        await asyncio.sleep(5)

    async def run():
        server = await asyncio.start_server(never, "127.0.0.1", 0)
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
        return await drive(route(target, timeout_s=0.1), sends(2))

    traffic = asyncio.run(run())
    assert [one.error for one in traffic.records] == ["timeout", "timeout"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}", "http 503"),
        (b"HTTP/1.1 200 OK\r\n\r\ndata: {oops\n\n", "broken answer"),
        (b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices": []}\n\n', "broken answer"),
        (
            b'HTTP/1.1 200 OK\r\n\r\ndata: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n',
            "error in the stream",
        ),
        (b"", "broken answer"),
        (b"hello\r\n\r\n", "broken answer"),
    ],
)
def test_an_answer_that_failed_says_how(reply, error):
    async def say(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    async def run():
        server = await asyncio.start_server(say, "127.0.0.1", 0)
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
        return await drive(route(target), sends(1))

    assert [one.error for one in asyncio.run(run()).records] == [error]


def test_being_cancelled_keeps_what_was_measured():
    async def run(target):
        task = asyncio.create_task(drive(route(target), sends(1000, gap_s=0.01)))
        await asyncio.sleep(0.3)
        task.cancel()
        return await task

    with stub(2) as target:
        traffic = asyncio.run(run(target))
    assert traffic.interrupted
    found = serve_results(traffic, {})
    assert 5 < found["completed"] < 100
    assert found["errors"] == 0


def test_the_client_is_no_bottleneck():
    """It takes at least 4,000 pieces a second of its own CPU time, dozens of times what a CPU
    model makes; one measured alone does ten times that."""
    with stub(500) as target:
        cpu = time.process_time()
        traffic = asyncio.run(drive(route(target), sends(16, tokens=500)))
        cpu = time.process_time() - cpu
    pieces = sum(len(one.pieces_s) for one in traffic.records)
    assert pieces == 16 * 500
    assert pieces / cpu > 4000
    assert traffic.client_cpu_s <= cpu


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h:81", Target("h", 81)),
        ("http://h:81/v1/", Target("h", 81)),
        ("https://h/a/v1", Target("h", 443, "/a", tls=True)),
        ("http://[::1]:5/", Target("::1", 5)),
    ],
)
def test_addresses(url, target):
    assert Target.of(url) == target


@pytest.mark.parametrize("url", ["", "h:81", "ftp://h", "http://", "http://h:port", "http://[::1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="--url"):
        Target.of(url)


def test_a_server_that_is_not_there_is_an_error_with_a_remedy():
    with stub(1) as target:
        pass
    with pytest.raises(RtpError, match="check --url"):
        asyncio.run(fetch(target, "GET", "/v1/models"))
