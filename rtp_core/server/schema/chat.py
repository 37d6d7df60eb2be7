"""The body of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from rtp_core.server.schema.fields import Count, GenerationBody, Logprobs
from rtp_core.server.schema.tools import ToolChoice, Tools


class FunctionCall(Struct, kw_only=True):
    """A call the assistant made; `arguments` is JSON in a string."""

    name: str
    arguments: str


class ToolCall(Struct, kw_only=True):
    """One entry of an assistant turn's `tool_calls`."""

    function: FunctionCall
    id: str | None = None
    type: Literal["function"] = "function"


class ContentPart(Struct, kw_only=True):
    """A part of a message. Only `text` and `refusal` parts are understood."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Message(Struct, kw_only=True):
    """One turn. Further keys, which gateways send back from answers, are ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatBody(GenerationBody, kw_only=True):
    """`max_completion_tokens` wins over `max_tokens`; without either the context is the limit."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    include_reasoning: bool | None = None
