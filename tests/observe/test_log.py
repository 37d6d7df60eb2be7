from __future__ import annotations

from rtp_core.observe.log import line


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
