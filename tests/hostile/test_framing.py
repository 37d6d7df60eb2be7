"""Requests whose end two readers could see in two places, and bytes that are no request.

Behind a proxy, what one of the two takes for a body is to the other a request of its own, under
the proxy's name and past its rules. h11 before 0.16 had CVE-2025-43859 in its chunks.
"""

from __future__ import annotations

import contextlib
import json
import re
import time

import pytest
from target import CHAT, HELLO

BODY = json.dumps(HELLO).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def head(*lines, version=b"1.1"):
    start = b"POST %s HTTP/%s\r\nHost: x\r\nAuthorization: Bearer first\r\n" % (
        CHAT.encode(),
        version,
    )
    return start + b"Content-Type: application/json\r\n" + b"".join(lines) + b"\r\n"


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


AMBIGUOUS = {
    "length and coding": head(LENGTH, CHUNKED) + CHUNKS,
    "coding and length": head(CHUNKED, b"Content-Length: 5\r\n") + CHUNKS,
    "coding in 1.0": head(CHUNKED, version=b"1.0") + CHUNKS,
    "two lengths": head(LENGTH, b"Content-Length: 5\r\n") + BODY,
    "list of lengths": head(b"Content-Length: 5, %d\r\n" % len(BODY)) + BODY,
    "length with a sign": head(b"Content-Length: +%d\r\n" % len(BODY)) + BODY,
    "hexadecimal length": head(b"Content-Length: 0x%x\r\n" % len(BODY)) + BODY,
    "negative length": head(b"Content-Length: -1\r\n") + BODY,
    "grouped length": head(b"Content-Length: 1_0\r\n") + BODY,
    "length of forty digits": head(b"Content-Length: %s\r\n" % (b"9" * 40)) + BODY,
    "space before the colon": head(b"Content-Length : 5\r\n") + BODY,
    "coding before the colon": head(b"Transfer-Encoding : chunked\r\n") + CHUNKS,
    "unknown coding": head(b"Transfer-Encoding: xchunked\r\n") + CHUNKS,
    "identity": head(b"Transfer-Encoding: identity\r\n", LENGTH) + BODY,
    "two codings": head(b"Transfer-Encoding: gzip, chunked\r\n") + CHUNKS,
    "coding twice": head(CHUNKED, CHUNKED) + CHUNKS,
    "vertical tab": head(b"Transfer-Encoding: \x0bchunked\r\n") + CHUNKS,
    "bare return": head(b"X: a\rContent-Length: 5\r\n", LENGTH) + BODY,
    "null byte": head(b"X: a\x00b\r\n", LENGTH) + BODY,
    "two hosts": head(b"Host: y\r\n", LENGTH) + BODY,
    "no host": head(LENGTH).replace(b"Host: x\r\n", b"") + BODY,
    "negative chunk": head(CHUNKED) + b"-5\r\n" + BODY,
    "prefixed chunk": head(CHUNKED) + b"0x10\r\n" + BODY,
    "chunk without end": head(CHUNKED) + b"%x\r\n%sXX0\r\n\r\n" % (len(BODY), BODY),
    "line feeds only": head(CHUNKED) + CHUNKS.replace(b"\r\n", b"\n"),
    "extension with a line feed": head(CHUNKED) + b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    "chunk of thirty digits": head(CHUNKED) + b"f" * 30 + b"\r\n" + BODY,
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_nothing_after_it_is_read(target, name):
    answer = target.raw(AMBIGUOUS[name] + SMUGGLED, 3)
    (status,) = statuses(answer)
    assert status in (400, 501)
    assert b"connection: close" in answer.lower()
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "sound",
    [
        head(LENGTH) + BODY,
        head(LENGTH, LENGTH) + BODY,
        head(CHUNKED) + CHUNKS,
        head(CHUNKED) + CHUNKS[:-2] + b"Authorization: Bearer wrong\r\nContent-Length: 5\r\n\r\n",
        head(b"X-Folded: a\r\n b\r\n", LENGTH) + BODY,
    ],
)
def test_a_sound_request_ends_where_the_next_begins(target, sound):
    assert statuses(target.raw(sound + SMUGGLED, 5)) == [200, 200]


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    ],
)
def test_no_other_protocol_is_spoken(target, upgrade):
    """An upgrade is a tunnel through every proxy on the way."""
    answer = target.raw(b"GET /version HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n" + SMUGGLED, 5)
    assert 101 not in statuses(answer)
    assert statuses(answer) == [200, 200]


@pytest.mark.parametrize(
    "odd",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT evil:1 HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n",
        b"TRACE /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: a\r\n\r\n",
        b"GET http://evil/ HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_it_is_no_proxy_and_no_mirror(target, odd):
    answer = target.raw(odd, 5)
    assert all(400 <= status < 500 for status in statuses(answer))
    assert b"Cookie" not in answer


def test_a_flood_of_requests_without_reading_is_held_back(target):
    """CVE class of pipelining: answers nobody reads must not pile up."""
    before = target.vitals()
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first\r\n\r\n"
    with target.connection(1.0) as connection:
        sent, end = 0, time.monotonic() + 4
        with contextlib.suppress(TimeoutError):  # the server reads no more
            while time.monotonic() < end:
                sent += connection.send(request * 200)
        assert sent < 64 * 2**20
        assert statuses(connection.recv(2**16))[0] == 200
    assert target.vitals().rss - before.rss < 24 * 2**20
    used = target.vitals().cpu_s
    time.sleep(0.5)
    assert target.vitals().cpu_s - used < 0.4
