"""What clients send appears in no log line, header, metric or trace as anything but data."""

from __future__ import annotations

import json
import logging
import re
import time

import pytest
from target import CHAT, HELLO, TEXT

from rtp_core.observe.log import JsonFormatter

FORGED = "\r\nINFO:rtp.request:request_finished id=forged status=200\x1b[2J\x00\u2028\u202e"
EVENTS = {"request_finished", "request_refused"}
LINE = re.compile(r"(?:DEBUG|INFO|WARNING|ERROR):[\w.]+:[ -~]*")


def sent(value):
    """The value wherever a client has a say."""
    yield {**HELLO, "model": value}
    yield {**HELLO, value: 1}
    yield {**HELLO, "request_id": value}
    yield {**HELLO, "user": value, "metadata": {value: value}}
    yield {**HELLO, "cache_salt": value}
    yield {**HELLO, "stop": value}
    yield {**HELLO, "temperature": value}
    yield {**HELLO, "logit_bias": {value: 1}}
    yield {**HELLO, "chat_template_kwargs": {value: 1}}
    yield {**HELLO, "response_format": {"type": value}}
    yield {**HELLO, "structured_outputs": {"regex": f"({value}"}}
    yield {**HELLO, "structured_outputs": {"grammar": f"start: {value}"}}
    yield {**HELLO, "structured_outputs": {"json": {"type": value}}}
    yield {**HELLO, "tools": [{"type": "function", "function": {"name": value}}]}
    yield {"messages": [{"role": value, "content": value}]}
    yield {"messages": [{"role": "user", "name": value, "content": value}]}
    yield {"messages": [{"role": "user", "content": [{"type": value}]}]}


@pytest.mark.parametrize(
    "value", [FORGED, "%s%n%d{0}{x.__class__}${jndi:ldap://x}", "\ufeff\u0085"]
)
def test_no_line_of_the_log_is_a_clients(target, value):
    target.new_log()
    for body in sent(value):
        answer = target.post(CHAT, body)
        assert answer.status_code in (200, 400, 404)
        assert not re.search(r"[\x00-\x1f\x7f\u2028\u202e]", answer.text)
    target.post("/v1/messages", {**HELLO, "max_tokens": 5, "model": value})
    target.post("/v1/responses", {"input": value, "model": value})
    target.post(TEXT, {"prompt": value, "suffix": value})
    lines = logged(target)
    assert all(LINE.fullmatch(line) for line in lines), lines
    fields = [as_fields(line.split(":", 2)[2]) for line in lines]
    assert all(one["event"] in EVENTS for one in fields), lines
    assert all(re.fullmatch("[0-9a-f]{32}", one["id"]) for one in fields), lines


def as_fields(message):
    record = logging.LogRecord("x", logging.INFO, "", 0, message, (), None)
    return json.loads(JsonFormatter().format(record))


def logged(target):
    """All that was logged once the log is quiet."""
    time.sleep(0.2)
    return target.new_log().splitlines()


@pytest.mark.parametrize(
    "identity",
    [
        b"a\tb",
        b"a b",
        b"x" * 129,
        b"\xff\xfe",
        b"a;id",
        b"../../x",
        b"%0d%0aX: 1",
        b'"',
        b"\x7f",
        b"",
    ],
)
def test_the_clients_name_of_a_request_is_taken_only_if_it_is_plain(target, identity):
    """Splitting of responses: what comes back as a header was checked."""
    answer = target.raw(
        b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: " + identity
        + b"\r\n\r\n", 5,
    )  # fmt: skip
    if answer.startswith(b"HTTP/1.1 400"):
        return  # bytes that no header may hold
    assert answer.startswith(b"HTTP/1.1 200")
    assert re.search(rb"x-request-id: [0-9a-f]{32}\r\n", answer)


def test_paths_and_headers_are_not_logged(target):
    target.new_log()
    for path in ("/%0aINFO:forged", "/forged%1b[2J", "/v1/models/forged%0d%0a", "/?forged=%0a"):
        target.raw(
            f"GET {path} HTTP/1.1\r\nHost: forged\r\nUser-Agent: forged\r\n\r\n".encode(), 0.3
        )
    target.raw(b"forged\r\n\x1b[2J nonsense\r\n\r\n", 0.5)
    lines = logged(target)
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert "forged" not in "".join(lines)


def test_no_value_of_a_client_is_a_label(target):
    """Metrics whose labels a client chooses grow without bound."""
    before = names_of_series(target)
    for at in range(20):
        target.post(CHAT, {**HELLO, "model": f"label-{at}", "user": f"label-{at}"})
        target.post(CHAT, {**HELLO, "user": f"label-{at}", "request_id": f"label-{at}"})
        target.client.get(f"/label-{at}")
    after = names_of_series(target)
    assert "label-" not in "".join(after)
    assert len(after) <= len(before) + 20  # those of the first requests


def names_of_series(target):
    text = target.client.get("/metrics").text
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


def test_errors_tell_nothing_of_the_machine(target):
    """No paths, addresses or traces: vLLM CVE-2026-22778 leaked the address of an object."""
    for body in (
        b"{",
        b"\xff",
        b"[" * 9999,
        json.dumps({"messages": [[]]}).encode(),
        b'{"messages":1e999}',
    ):
        text = target.post(CHAT, body).text
        assert not re.search(r"0x[0-9a-f]{6,}|/[a-z]+/[a-z]+/|Traceback|\.py\b|line \d", text)
    for value in ([], {}, 1.5, "x", None, True):
        for name in ("messages", "tools", "stop", "logit_bias", "structured_outputs", "n"):
            text = target.post(CHAT, {**HELLO, name: [value]}).text
            assert not re.search(r"0x[0-9a-f]{6,}|object at|Traceback|\.py\b", text)
