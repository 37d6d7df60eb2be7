"""Thoughts, text and calls in both APIs' words: what a stream tells adds up to the whole."""

from __future__ import annotations

import json
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from rtp_core.api import (
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    Request,
    SamplingParams,
    ToolArguments,
    ToolStart,
)
from rtp_core.server.anthropic.telling import MessageRenderer
from rtp_core.server.generation import Piece
from rtp_core.server.plan import Outcome
from rtp_core.server.rendering import Telling
from rtp_core.server.responses.telling import ResponseRenderer
from rtp_core.server.schema.chat import ChatBody, Message
from rtp_core.server.schema.responses import ResponsesBody
from rtp_core.text.output import TextDelta

USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 5,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def telling(prefix):
    body = ChatBody(messages=[Message(role="user", content="x")], request_id="r")
    request = Request("r", (1, 2, 3), SamplingParams(max_tokens=9))
    account = SimpleNamespace(
        prompt_tokens=3, cached_tokens=1, completion_tokens=5, usage=lambda: USAGE
    )
    return Telling(prefix, "demo", body, [request], None, account)


def response_renderer():
    return ResponseRenderer(
        telling("resp"), ResponsesBody(input="x", include=["reasoning.encrypted_content"])
    )


def message_renderer():
    return MessageRenderer(telling("msg"), 9)


def pieces_of(events, sizes, reason=FinishReason.STOP):
    """The events, cut into pieces of these sizes."""
    pieces, rest = [], list(events)
    for size in sizes:
        pieces.append(Piece(0, TextDelta(events=tuple(rest[:size]))))
        rest = rest[size:]
    pieces.append(Piece(0, TextDelta(events=tuple(rest), finish_reason=reason)))
    return pieces


def told(renderer, pieces):
    events = renderer.opening()
    for piece in pieces:
        events += renderer.events(piece)
    return events + renderer.closing()


def whole(renderer, pieces):
    outcome = Outcome(0)
    for piece in pieces:
        outcome.add(piece)
    return renderer.whole([outcome])


@st.composite
def answers(draw):
    """Thoughts, text and calls, each in several parts; arguments are JSON."""
    events = []
    calls = 0
    for kind in draw(st.lists(st.sampled_from("trc"), max_size=5)):
        parts = draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=3))
        if kind == "t":
            events += [ContentDelta(part) for part in parts]
        elif kind == "r":
            events += [ReasoningDelta(part) for part in parts]
        else:
            text = json.dumps({"x": "".join(parts)})
            events.append(ToolStart(calls, f"call_{calls}", "f"))
            events += [ToolArguments(calls, text[:5]), ToolArguments(calls, text[5:])]
            calls += 1
    return events


@given(answers(), st.lists(st.integers(0, 3), max_size=4))
def test_messages_streams_add_up(events, sizes):
    pieces = pieces_of(events, sizes)
    message = whole(message_renderer(), pieces)
    blocks, opened = [], None
    for event in told(message_renderer(), pieces):
        match event["type"]:
            case "content_block_start":
                assert opened is None
                opened = event["index"]
                assert opened == len(blocks)
                blocks.append(dict(event["content_block"]))
                arguments = ""
            case "content_block_delta":
                assert event["index"] == opened
                delta, block = event["delta"], blocks[-1]
                match delta["type"]:
                    case "input_json_delta":
                        arguments += delta["partial_json"]
                        if arguments.endswith("}"):
                            block["input"] = json.loads(arguments)
                    case "signature_delta":
                        block["signature"] = delta["signature"]
                    case kind:
                        name = kind.removesuffix("_delta")
                        block[name] += delta[name]
            case "content_block_stop":
                assert event["index"] == opened
                opened = None
    assert opened is None
    assert blocks == message["content"]
    calls = any(isinstance(event, ToolStart) for event in events)
    assert message["stop_reason"] == ("tool_use" if calls else "end_turn")


@given(answers(), st.lists(st.integers(0, 3), max_size=4))
def test_responses_streams_add_up(events, sizes):
    pieces = pieces_of(events, sizes)
    response = whole(response_renderer(), pieces)
    stream = told(response_renderer(), pieces)
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    added = [one["item"] for one in stream if one["type"] == "response.output_item.added"]
    done = [one["item"] for one in stream if one["type"] == "response.output_item.done"]
    assert done == response["output"] == stream[-1]["response"]["output"]
    assert [one["id"] for one in added] == [one["id"] for one in done]
    assert all(one["status"] == "in_progress" for one in added)
    texts = {one["id"]: "" for one in added}
    for event in stream:
        if event["type"].endswith(".delta"):
            texts[event["item_id"]] += event["delta"]
    for item in done:
        text = item["arguments"] if "arguments" in item else item["content"][0]["text"]
        assert texts[item["id"]] == text
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}


def test_each_kind_has_its_events():
    events = [
        ReasoningDelta("hm"),
        ContentDelta("so"),
        ToolStart(0, "call_1", "f"),
        ToolArguments(0, "{}"),
    ]
    stream = told(response_renderer(), pieces_of(events, [1, 1, 1]))
    assert [event["type"].removeprefix("response.") for event in stream] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    call = stream[-1]["response"]["output"][2]
    assert (call["type"], call["call_id"], call["name"]) == ("function_call", "call_1", "f")


def test_a_call_that_was_cut_is_no_input():
    events = [ToolStart(0, "call_1", "f"), ToolArguments(0, '{"x": ')]
    pieces = pieces_of(events, [], FinishReason.LENGTH)
    message = whole(message_renderer(), pieces)
    assert message["content"][0]["input"] == {}
    assert message["stop_reason"] == "max_tokens"
    response = whole(response_renderer(), pieces)
    assert response["status"] == response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["arguments"] == '{"x": '
