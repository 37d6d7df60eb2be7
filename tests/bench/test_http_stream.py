"""The client's reader, whatever the pieces in which bytes arrive, and against hostile servers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.bench.http_stream import AnswerReader, EventReader, ProtocolError

EVENTS = [b'{"a": 1}', b"x" * 40, b"", b"[DONE]"]
BODY = b": keep-alive\n\n" + b"".join(b"data: " + one + b"\n\n" for one in EVENTS)


def chunked(body, size=7):
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(one), one) for one in parts) + b"0\r\n\r\n"


ANSWERS = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY),
    "trailer": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    + chunked(BODY)[:-2]
    + b"X-Time: 1\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "until the end": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
}


def read(pieces):
    answer, events, found = AnswerReader(), EventReader(), []
    for piece in pieces:
        found += events.feed(answer.feed(piece))
    answer.end()
    return answer, found


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 400), max_size=12))
def test_the_cuts_do_not_matter(kind, cuts):
    data = ANSWERS[kind]
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    answer, found = read([data[a:b] for a, b in itertools.pairwise(edges)])
    assert answer.status == 200
    assert answer.complete
    assert found == EVENTS


@given(st.integers(0, len(ANSWERS["chunked"]) - 1))
def test_an_answer_that_breaks_off_is_never_complete(length):
    with pytest.raises(ProtocolError, match="ended"):
        read([ANSWERS["chunked"][:length]])


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 30_000,
    ],
)
def test_what_is_no_answer_is_refused(data):
    with pytest.raises(ProtocolError):
        AnswerReader().feed(data)


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_a_protocol_error(data):
    answer = AnswerReader()
    try:
        answer.feed(data)
        answer.end()
    except ProtocolError:
        pass
