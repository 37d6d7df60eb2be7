from __future__ import annotations

import json
import logging

import pytest

from rtp_core.observe.log import JsonFormatter, line


def test_fields_follow_the_event_in_order():
    assert line("done", id="a-1", status=200, ms=1.23456, ok=True) == (
        "done id=a-1 status=200 ms=1.235 ok=true"
    )


def test_none_is_left_out():
    assert line("done", finish=None) == "done"


def test_a_value_cannot_forge_a_field_or_a_line():
    forged = line("done", id='x status=200\nother "line"')
    assert "\n" not in forged
    assert forged == 'done id="x status=200\\nother \\"line\\""'


def as_json(message, **more):
    record = logging.LogRecord(
        "rtp.x", logging.INFO, "", 0, message, (), **{"exc_info": None} | more
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_json_lines_carry_the_fields_of_a_line():
    hostile = 'x status=200\nother "line" \\'
    entry = as_json(line("done", id=hostile, status=500, ms=1.5, level="forged"))
    assert (entry["event"], entry["id"], entry["status"]) == ("done", hostile, "500")
    assert (entry["ms"], entry["level"], entry["field_level"]) == ("1.500", "INFO", "forged")
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ready", {"event": "ready"}),
        ("lost reason='a b=c'", {"event": "lost", "reason": "a b=c"}),
        ("odd key= other=1", {"event": "odd", "key": "", "other": "1"}),
        ("plain words here", {"message": "plain words here"}),
        ('broken key="open', {"message": 'broken key="open'}),
        ("two\nlines", {"event": "two\nlines"}),
    ],
)
def test_whatever_is_no_line_stays_whole(message, expected):
    entry = as_json(message)
    for name in ("time", "level", "logger"):
        del entry[name]
    assert entry == expected


def test_json_lines_carry_the_exception():
    try:
        raise ValueError("deep")
    except ValueError as error:
        entry = as_json("failed", exc_info=(type(error), error, error.__traceback__))
    assert "ValueError: deep" in entry["exception"]
