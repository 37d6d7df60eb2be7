"""From a Messages body to the fields of a chat request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from rtp_core.errors import RequestError
from rtp_core.server.schema.anthropic import (
    MessagesBody,
    Part,
    PromptBody,
    Thinking,
    Tool,
    ToolChoice,
    Turn,
)

NAMES = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "thinking",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}
"""Chat's fields as this API calls them."""

_EFFORTS = {"xhigh": "high", "max": "high"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

Message = dict[str, Any]


def chat_fields(body: PromptBody, *, can_think: bool) -> tuple[dict[str, Any], list[str]]:
    """Fields of chat completions, and where each message stood. Raises RequestError.

    `can_think` says whether the model's template has a setting for reasoning.
    """
    messages, places = _messages(body)
    fields = {
        "model": body.model,
        "messages": messages,
        "tools": None if body.tools is None else [_tool(*one) for one in enumerate(body.tools)],
        "reasoning_effort": _effort(body, can_think),
    }
    if messages[-1]["role"] == "assistant":
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    if body.tool_choice is not None:
        fields |= _choice(body.tool_choice)
    if body.output_config is not None and body.output_config.format is not None:
        schema = {"name": "output", "schema": body.output_config.format.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(body, MessagesBody):
        fields |= {
            "max_completion_tokens": body.max_tokens,
            "stop": body.stop_sequences or None,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "stream": body.stream,
        }
    return fields, places


def _messages(body: PromptBody) -> tuple[list[Message], list[str]]:
    messages: list[Message] = []
    places: list[str] = []
    if body.system:
        messages.append({"role": "system", "content": _content(body.system, "system")})
        places.append("system")
    for index, turn in enumerate(body.messages):
        place = f"messages[{index}]"
        read = _assistant if turn.role == "assistant" else _listener
        for message in read(turn, f"{place}.content"):
            messages.append(message)
            places.append(place)
    return messages, places


def _listener(turn: Turn, place: str) -> Iterable[Message]:
    """Results of tools are messages of their own; what stands between them is the user's."""
    if isinstance(turn.content, str):
        yield {"role": turn.role, "content": turn.content}
        return
    said: list[Message] = []
    for index, part in enumerate(turn.content):
        at = f"{place}[{index}]"
        if part.type != "tool_result":
            said.append(_part(part, at))
            continue
        if said:
            yield {"role": turn.role, "content": said}
            said = []
        yield _result(part, at)
    if said or not turn.content:
        yield {"role": turn.role, "content": said}


def _assistant(turn: Turn, place: str) -> Iterable[Message]:
    if isinstance(turn.content, str):
        return [{"role": "assistant", "content": turn.content}]
    message: Message = {"role": "assistant"}
    texts, thoughts, calls = [], [], []
    for index, part in enumerate(turn.content):
        at = f"{place}[{index}]"
        match part.type:
            case "thinking":
                thoughts.append(_required(part.thinking, f"{at}.thinking"))
            case "tool_use":
                calls.append(_call(part, at))
            case _:
                texts.append(_part(part, at))
    if texts or not calls:
        message["content"] = texts
    if thoughts:
        message["reasoning"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [message]


def _call(part: Part, place: str) -> Message:
    arguments = _required(part.input, f"{place}.input")
    function = {
        "name": _required(part.name, f"{place}.name"),
        "arguments": msgspec.json.encode(arguments).decode(),
    }
    return {"id": _required(part.id, f"{place}.id"), "type": "function", "function": function}


def _result(part: Part, place: str) -> Message:
    """Templates have no mark for a result that is an error: it is said in words."""
    content = _content(part.content or "", f"{place}.content")
    if part.is_error:
        content = [{"type": "text", "text": "Error:"}, *_as_parts(content)]
    call_id = _required(part.tool_use_id, f"{place}.tool_use_id")
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _content(content: str | Sequence[Part], place: str) -> str | list[Message]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: Part, place: str) -> Message:
    match part.type:
        case "text":
            return {"type": "text", "text": _required(part.text, f"{place}.text")}
        case "image":
            source = _required(part.source, f"{place}.source")
            return {"type": "image_url", "image_url": {"url": _url(source, f"{place}.source")}}
        case _:
            raise RequestError(
                f"{place}.type",
                "this server does not read parts of this kind here",
                code="unsupported_parameter",
                remedy='use "text"',
            )


def _url(source: dict[str, Any], place: str) -> str:
    match source.get("type"), source.get("media_type"), source.get("data"), source.get("url"):
        case "base64", str(media_type), str(data), _:
            return f"data:{media_type};base64,{data}"
        case "url", _, _, str(url):
            return url
        case _:
            raise RequestError(place, "an image is given as base64 data with its type, or a URL")


def _as_parts(content: str | list[Message]) -> list[Message]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _tool(index: int, tool: Tool) -> Message:
    place = f"tools[{index}]"
    if tool.type not in (None, "custom"):
        raise RequestError(
            f"{place}.type",
            "this server calls tools of the client only; it has no tools of its own",
            code="unsupported_parameter",
        )
    schema = _required(tool.input_schema, f"{place}.input_schema")
    function = {"name": tool.name, "parameters": schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.type == "tool":
        name = _required(choice.name, "tool_choice.name")
        wanted: Any = {"type": "function", "function": {"name": name}}
    else:
        wanted = _CHOICES[choice.type]
    return {
        "tool_choice": wanted,
        "parallel_tool_calls": False if choice.disable_parallel_tool_use else None,
    }


def _effort(body: PromptBody, can_think: bool) -> str | None:
    """Thinking and effort in one word; a model that cannot think need not be told not to."""
    config, thinking = body.output_config, body.thinking or Thinking(type="adaptive")
    effort = None if config is None else config.effort
    if thinking.type == "disabled":
        return "none" if can_think else None
    if effort is None:
        return "medium" if thinking.type == "enabled" else None
    return _EFFORTS.get(effort, effort)


def _required(value: Any, place: str) -> Any:
    if value is None:
        raise RequestError(place, "the field is required")
    return value
