"""From chat messages as clients send them to messages as templates expect them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rtp_core.errors import RequestError
from rtp_core.server.schema.chat import ContentPart, Message, ToolCall

MAX_PIECES = 2**14
"""Turns, parts and calls of a conversation; each costs more than its characters."""

_MEDIA = frozenset({"image_url", "input_image", "video_url", "audio_url", "input_audio", "file"})


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """One mapping a turn: role, content as a string, and what a tool turn carries.

    ``developer`` turns become ``system`` turns, which is what templates know. Raises
    RequestError naming the message: 400, or 501 for media this server cannot see or hear.
    """
    if sum(map(_pieces, messages)) > MAX_PIECES:
        raise RequestError(
            "messages", f"a conversation has at most {MAX_PIECES} turns, parts and tool calls"
        )
    return [_turn(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _pieces(message: Message) -> int:
    parts = message.content if isinstance(message.content, list) else ()
    return 1 + len(parts) + len(message.tool_calls or ())


def _turn(message: Message, place: str) -> dict[str, Any]:
    turn: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": _content(message, f"{place}.content"),
    }
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    reasoning = message.reasoning or message.reasoning_content
    if reasoning is not None:
        turn["reasoning_content"] = reasoning
    if message.tool_calls:
        if message.role != "assistant":
            raise RequestError(f"{place}.tool_calls", "only assistant turns have tool calls")
        turn["tool_calls"] = [
            _tool_call(call, f"{place}.tool_calls[{index}]")
            for index, call in enumerate(message.tool_calls)
        ]
    return turn


def _content(message: Message, place: str) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is not None:
        return "\n".join(_text(part, f"{place}[{index}]") for index, part in enumerate(content))
    if message.role != "assistant" or not message.tool_calls:
        raise RequestError(place, "content is required, unless an assistant turn has tool calls")
    return ""


def _text(part: ContentPart, place: str) -> str:
    if part.type in _MEDIA:
        raise RequestError(
            f"{place}.type",
            "this model reads text only",
            status=501,
            code="unsupported_modality",
            remedy="serve a model with an encoder and select it in modality.encoders",
        )
    text = {"text": part.text, "refusal": part.refusal}.get(part.type)
    if part.type not in ("text", "refusal"):
        raise RequestError(f"{place}.type", "unknown kind of part", remedy='use "text"')
    if text is None:
        raise RequestError(f"{place}.{part.type}", "the field is required")
    return text


def _tool_call(call: ToolCall, place: str) -> dict[str, Any]:
    """Arguments are a JSON string on the wire and a mapping for templates."""
    try:
        arguments = msgspec.json.decode(call.function.arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise RequestError(
            f"{place}.function.arguments", "arguments must be a string holding a JSON object"
        ) from None
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
