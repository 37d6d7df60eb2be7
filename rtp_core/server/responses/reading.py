"""From a Responses body to the fields of a chat request."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from rtp_core.errors import RequestError
from rtp_core.server.schema.responses import Format, InputItem, InputPart, ResponsesBody

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
"""Chat's fields as this API calls them."""

_SAME = (
    "model",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "stream",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "cache_salt",
    "priority",
    "request_id",
    "chat_template_kwargs",
)
_SEAL = "rtp1:"
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_MEDIA = {"input_image": "image_url", "input_audio": "input_audio", "input_file": "file"}


def chat_fields(body: ResponsesBody) -> tuple[dict[str, Any], list[str]]:
    """Fields of chat completions, and where each message stood. Raises RequestError."""
    conversation = Conversation()
    if body.instructions:
        conversation.add({"role": "system", "content": body.instructions}, "instructions")
    if isinstance(body.input, str):
        conversation.add({"role": "user", "content": body.input}, "input")
    else:
        for index, item in enumerate(body.input):
            conversation.take(item, f"input[{index}]")
    fields = {name: getattr(body, name) for name in _SAME}
    fields |= _tool_fields(body) | _token_fields(body)
    fields["messages"] = conversation.messages
    return fields, conversation.places


def sealed(text: str) -> str:
    """Reasoning as an opaque string, for clients that send back nothing else."""
    return _SEAL + base64.b64encode(text.encode()).decode()


class Conversation:
    """Collects items into turns: reasoning, text and calls of one turn are one message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.places: list[str] = []

    def take(self, item: InputItem, place: str) -> None:
        """Add an item. Raises RequestError naming it."""
        match item.type or "message":
            case "message":
                self._take_message(item, place)
            case "function_call":
                self._take_call(item, place)
            case "function_call_output":
                output = _required(item.output, f"{place}.output")
                call_id = _required(item.call_id, f"{place}.call_id")
                content = _content(output, f"{place}.output")
                self.add({"role": "tool", "tool_call_id": call_id, "content": content}, place)
            case "reasoning":
                self._turn(place, "reasoning", "content", "tool_calls")["reasoning"] = _thought(
                    item, place
                )
            case "item_reference":
                raise RequestError(f"{place}.type", "items are not stored: send the item itself")
            case _:
                raise RequestError(
                    f"{place}.type",
                    "this server knows messages, function calls, their outputs and reasoning",
                    code="unsupported_parameter",
                )

    def add(self, message: dict[str, Any], place: str) -> None:
        """A turn of its own, but system turns at the beginning are one: templates want that."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last["role"] == message["role"] == "system":
            last["content"] = [*_parts(last["content"]), *_parts(message["content"])]
            return
        self.messages.append(message)
        self.places.append(place)

    def _take_message(self, item: InputItem, place: str) -> None:
        role = _required(item.role, f"{place}.role")
        content = _content(_required(item.content, f"{place}.content"), f"{place}.content")
        if role == "assistant":
            self._turn(place, "content", "tool_calls")["content"] = content
        else:
            role = "system" if role == "developer" else role
            self.add({"role": role, "content": content}, place)

    def _take_call(self, item: InputItem, place: str) -> None:
        call = {
            "id": _required(item.call_id, f"{place}.call_id"),
            "type": "function",
            "function": {
                "name": _required(item.name, f"{place}.name"),
                "arguments": _required(item.arguments, f"{place}.arguments"),
            },
        }
        self._turn(place).setdefault("tool_calls", []).append(call)

    def _turn(self, place: str, *taken: str) -> dict[str, Any]:
        """The assistant's turn under way, unless it has any of `taken` already; else a new one."""
        last = self.messages[-1] if self.messages else {"role": None}
        if last["role"] != "assistant" or any(name in last for name in taken):
            last = {"role": "assistant"}
            self.add(last, place)
        return last


def _tool_fields(body: ResponsesBody) -> dict[str, Any]:
    tools = None if body.tools is None else [_tool(*one) for one in enumerate(body.tools)]
    choice = body.tool_choice
    if isinstance(choice, dict):
        if choice.get("type") != "function":
            raise RequestError(
                "tool_choice.type",
                'a tool choice is "none", "auto", "required" or a function',
                code="unsupported_parameter",
            )
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return {"tools": tools, "tool_choice": choice}


def _tool(index: int, tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise RequestError(
            f"tools[{index}].type",
            "this server calls functions of the client only; it has no tools of its own",
            code="unsupported_parameter",
        )
    named = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in named if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _token_fields(body: ResponsesBody) -> dict[str, Any]:
    text_format = None if body.text is None else body.text.format
    wanted = LOGPROBS in (body.include or ())
    if body.top_logprobs and not wanted:
        raise RequestError("top_logprobs", f"top_logprobs needs {LOGPROBS} in include")
    return {
        "max_completion_tokens": body.max_output_tokens,
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
        "response_format": None if text_format is None else _response_format(text_format),
        "logprobs": wanted or None,
        "top_logprobs": body.top_logprobs if wanted else None,
    }


def _response_format(given: Format) -> dict[str, Any]:
    if given.type != "json_schema":
        return {"type": given.type}
    named = ("name", "schema", "strict", "description")
    schema = {name: getattr(given, name) for name in named if getattr(given, name) is not None}
    return {"type": "json_schema", "json_schema": schema}


def _thought(item: InputItem, place: str) -> str:
    """Reasoning in clear, or as `sealed` wrote it."""
    if isinstance(item.content, str):
        return item.content
    if item.content:
        return "\n".join(part.text or "" for part in item.content)
    if item.encrypted_content is None:
        return ""
    try:
        seal, text = item.encrypted_content[: len(_SEAL)], item.encrypted_content[len(_SEAL) :]
        thought = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        seal, thought = "", ""
    if seal != _SEAL:
        raise RequestError(f"{place}.encrypted_content", "this server did not write this content")
    return thought


def _content(content: str | Sequence[InputPart], place: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: InputPart, place: str) -> dict[str, Any]:
    if part.type in _TEXTS:
        return {"type": "text", "text": _required(part.text, f"{place}.text")}
    if part.type == "refusal":
        return {"type": "refusal", "refusal": _required(part.refusal, f"{place}.refusal")}
    if part.type == "input_image":
        image = {"url": part.image_url, "detail": part.detail or "auto"}
        return {"type": "image_url", "image_url": image}
    if part.type in _MEDIA:
        return {"type": _MEDIA[part.type]}
    raise RequestError(f"{place}.type", "unknown kind of part", remedy='use "input_text"')


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _required(value: Any, place: str) -> Any:
    if value is None:
        raise RequestError(place, "the field is required")
    return value
