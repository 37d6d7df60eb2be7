"""How streams leave the process: chunks filled in, framing, readers of every speed."""

from __future__ import annotations

import asyncio
import json
import socket
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import LiveServer, ScriptBackend, events_of, settings, wait_for

from rtp_core.api import ContentDelta, FinishReason, ReasoningDelta, Request, SamplingParams
from rtp_core.server.chat_answer import ChatRenderer
from rtp_core.server.completion_answer import CompletionRenderer
from rtp_core.server.generation import Piece
from rtp_core.server.rendering import Telling
from rtp_core.server.schema.chat import ChatBody, Message
from rtp_core.server.schema.completion import CompletionBody
from rtp_core.server.schema.fields import StreamOptions
from rtp_core.text.output import TextDelta

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


# ---- chunks


def renderers(**fields):
    """Of both endpoints, for two choices; identity and model are hostile to templates."""
    account = SimpleNamespace(usage=lambda: {"completion_tokens": 5})
    sampling = SamplingParams(n=2, max_tokens=9)
    identity = {"request_id": 'r"\\content{}%b', "model": "text\u2028", **fields}
    chat = ChatBody(messages=[Message(role="user", content="x")], **identity)
    text = CompletionBody(prompt="x", **identity)
    for make, body in ((ChatRenderer, chat), (lambda one: CompletionRenderer(one, ()), text)):
        request = Request("r", (1, 2, 3), sampling)
        yield make(Telling("id", body.model, body, [request], None, account))


deltas = st.builds(
    lambda events, ids, reason: TextDelta(
        "".join(one.text for one in events if isinstance(one, ContentDelta)),
        tuple(ids),
        finish_reason=reason,
        events=tuple(events),
    ),
    st.lists(st.builds(ContentDelta, st.text(min_size=1)), max_size=2)
    | st.lists(st.builds(ReasoningDelta, st.text(min_size=1)), max_size=1),
    st.lists(st.integers(0, 9), max_size=2),
    st.none() | st.sampled_from(FinishReason),
)
options = st.none() | st.builds(
    StreamOptions, include_usage=st.booleans(), continuous_usage_stats=st.booleans()
)


@given(
    st.lists(st.tuples(st.integers(0, 1), deltas), max_size=6),
    options,
    st.none() | st.booleans(),
)
def test_a_frame_is_its_events(pieces, stream_options, return_token_ids):
    fields = {"stream_options": stream_options, "return_token_ids": return_token_ids}
    for renderer in renderers(**fields):
        for choice, delta in pieces:
            piece = Piece(choice, delta)
            assert renderer.frame(piece) == renderer.wire.encode(renderer.events(piece))


# ---- on a connection


@pytest.fixture(scope="module")
def server(model_dir):
    server = LiveServer(lambda: ScriptBackend(model_dir, ("grüße " * 500,)), settings(port=0))
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    with server:
        yield server


def ask(server, version, window=None):
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 200}).encode()
    connection = socket.socket()
    if window is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(
        b"POST %b HTTP/%b\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (CHAT.encode(), version, len(body), body)
    )
    return connection


def read(connection, ends):
    """Header and body as they came; up to the end of the connection when `ends` is None."""
    data = b""
    while (ends is None or not data.endswith(ends)) and (part := connection.recv(4096)):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return head.lower(), body


def unchunked(body):
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        parts.append(body[:count])
        assert body[count : count + 2] == b"\r\n"
        body = body[count + 2 :]
    assert parts[-1] == b""
    assert all(parts[:-1]), "an empty chunk ends a body"
    return b"".join(parts).decode()


def text_of(events):
    return "".join(one["choices"][0]["delta"].get("content", "") for one in events)


def expected():
    return ("grüße " * 500).encode()[:200].decode(errors="replace")


def test_chunks_are_framed_and_the_connection_goes_on(server):
    with ask(server, b"1.1") as connection:
        head, body = read(connection, b"\r\n0\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert text_of(events_of(unchunked(body))) == expected()
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_old_client_gets_the_plain_body(server):
    with ask(server, b"1.0") as connection:
        head, body = read(connection, None)
        assert b"transfer-encoding" not in head
        assert text_of(events_of(body.decode())) == expected()


def test_a_client_that_pauses_gets_all_of_it(server):
    """The transport fills up, pieces merge, nothing is lost or told twice."""
    server.on_loop(lambda: setattr(server.backend, "step_s", 0.0))
    readers = [ask(server, b"1.1", window=2048) for _ in range(4)]
    wait_for(lambda: len(server.backend.live) == 4 or not server.backend.live)
    for connection in readers:
        with connection:
            _, body = read(connection, b"\r\n0\r\n\r\n")
            assert text_of(events_of(unchunked(body))) == expected()


def test_a_bug_in_the_middle_of_a_stream_is_its_last_event(server, monkeypatch, caplog):
    whole = ChatRenderer.frame

    def broken(self, piece):
        if piece.delta.text == "e":
            raise ZeroDivisionError
        return whole(self, piece)

    monkeypatch.setattr(ChatRenderer, "frame", broken)
    with ask(server, b"1.1") as connection:
        _, body = read(connection, b"\r\n0\r\n\r\n")
    *before, error = events_of(unchunked(body))
    assert text_of(before) == "grüß"
    assert error["error"]["type"] == "server_error"
    assert "generation_failed" in caplog.text
    wait_for(lambda: not server.backend.live)


async def test_pieces_before_the_stream_begins_are_bounded_and_kept(client, backend):
    """All of a fast answer may be there before its first byte is asked for."""
    backend.script = ("x" * 200,)
    body = {**HELLO, "stream": True, "n": 3, "max_tokens": 150}
    answer = await client.post(CHAT, json=body)
    events = events_of(answer.text)
    for choice in range(3):
        mine = [one for one in events if one["choices"][0]["index"] == choice]
        assert text_of(mine) == "x" * 150
        assert mine[-1]["choices"][0]["finish_reason"] == "length"
    await asyncio.sleep(0)
    assert not backend.live
