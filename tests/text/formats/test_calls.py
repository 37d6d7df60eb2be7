"""Calls of tools in every family's writing: found, or left as content, never lost."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from samples import FORMATS, MALFORMED, SAMPLES, TOOLS, calls, content, squeezed, told

from rtp_core.api import ContentDelta, ToolStart
from rtp_core.text.formats import detect

PIECES = [
    "<tool_call>", "</tool_call>", '{"name": "now"', ', "arguments": {', "}", "}", "{", "[", "]",
    "<function=", "now>", "<parameter=", "a>", "</parameter>", "</function>", "[TOOL_CALLS]",
    "[ARGS]", "<|python_tag|>", "; ", "[now(", "a=1", ")", "'", '"', "\\", "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>", "\n```json\n", "\n```",
    "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", " ", "\n", "text", "é", "<", "｜",
]  # fmt: skip


def parser(name):
    return FORMATS[name].parser(TOOLS)


@pytest.mark.parametrize(("name", "text", "said", "called"), SAMPLES)
@pytest.mark.parametrize("sizes", [(10**9,), (1,), (2,), (3, 7)])
def test_calls_are_found_however_the_text_arrives(name, text, said, called, sizes):
    events = told(parser(name), text, sizes)
    assert calls(events) == called
    assert content(events) == said


@pytest.mark.parametrize(("name", "text"), MALFORMED)
@pytest.mark.parametrize("sizes", [(10**9,), (1,), (5, 2)])
def test_what_is_no_call_is_content_to_the_letter(name, text, sizes):
    assert told(parser(name), text, sizes) == [ContentDelta(text)]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=25),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_pieces_change_nothing_and_nothing_is_lost(name, parts, sizes):
    text = "".join(parts)
    events = told(parser(name), text)
    assert told(parser(name), text, sizes) == events
    for _, arguments in calls(events):
        assert isinstance(json.loads(arguments), dict)
    if not calls(events):
        assert content(events) == text
    kept = iter(squeezed(text))
    assert all(char in kept for char in squeezed(content(events)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "unit",
    ["<tool_call>", '<tool_call>{"a":', "{", "[", "[now(", "<function=", "[TOOL_CALLS]", "\n",
     "<|python_tag|>", "<｜tool▁call▁begin｜>", "<｜tool▁calls▁begin｜>", '{"a":"', "<tool_cal"],
)  # fmt: skip
def test_a_megabyte_of_openings_takes_linear_time(name, unit):
    def seconds(size):
        text, reader = unit * (size // len(unit)), parser(name)
        began = time.process_time()
        events = [one for at in range(0, len(text), 4) for one in reader.feed(text[at : at + 4])]
        events += reader.end()
        assert "".join(one.text for one in events) == text
        return time.process_time() - began

    assert seconds(2**20) < 20 * max(seconds(2**17), 0.02)


def test_ids_are_as_the_families_demand():
    text = '[TOOL_CALLS][{"name": "now"}, {"name": "now"}]'
    ids = [one.id for one in parser("mistral").feed(text) if isinstance(one, ToolStart)]
    assert len(set(ids)) == 2
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    (start, _) = parser("hermes").feed('<tool_call>{"name": "now"}</tool_call>')
    assert start.id.startswith("call_")


def test_content_before_a_call_does_not_wait_for_it():
    reader = parser("hermes")
    assert list(reader.feed("I will look")) == [ContentDelta("I will look")]
    assert list(reader.feed(" it up <tool")) == [ContentDelta(" it up")]
    assert list(reader.feed("s>")) == [ContentDelta(" <tools>")]


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ('{{ "[TOOL_CALLS]" }}', "mistral"),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "deepseek_v3"),
        ("<tool_call>\n<function=x>\n<parameter=y>", "qwen3_coder"),
        ("<tool_call>", "hermes"),
        ('<|python_tag|> {"name": function name, "parameters": …}', "llama3_json"),
        ("[func_name1(params_name1=params_value1)]", "pythonic"),
        ('respond with a JSON for a function call, {"name", "parameters"}', "llama3_json"),
        ("{{ message.content }}", None),
    ],
)
def test_the_template_tells_the_format(template, found):
    assert detect.tool_format(template) == found


def test_the_template_tells_how_thoughts_are_marked():
    assert detect.reasoning_format("x<think>y</think>") == "qwen3"
    assert detect.reasoning_format("content.split('</think>')[-1]") == "deepseek_r1"
    assert detect.reasoning_format("x") is None
