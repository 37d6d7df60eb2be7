"""The bodies of /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from rtp_core.server.schema.fields import INT32_MAX, Share

_TOOLS = "this server runs no tools itself"

MESSAGES_REFUSED = {
    "container": _TOOLS,
    "mcp_servers": _TOOLS,
    "context_management": "this server does not edit conversations",
    "diagnostics": "this server keeps no record of earlier messages to compare with",
    "user_profile_id": "profiles are not known to this server",
    "workspace_id": "workspaces are not known to this server",
}

MESSAGES_IGNORED = frozenset({"metadata", "service_tier", "cache_control", "inference_geo"})
"""Sent by client libraries; the server caches every prefix by itself."""


class Part(Struct, kw_only=True):
    """A part of a message, of the system prompt, or of a tool's result.

    Keys that clients add or send back (``cache_control``, ``citations``, ``signature``) are
    ignored.
    """

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Part] | None = None
    is_error: bool | None = None
    source: dict[str, Any] | None = None


class Turn(Struct, kw_only=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Part]


class Tool(Struct, kw_only=True):
    """A tool of the client. `type` is absent or ``custom``; others are Anthropic's own."""

    name: str
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    type: str | None = None


class ToolChoice(Struct, kw_only=True, forbid_unknown_fields=True):
    """Whether and which tool is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, kw_only=True, forbid_unknown_fields=True):
    """`budget_tokens` is a wish within `max_tokens`; thinking is told in full."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1, le=INT32_MAX)] | None = None
    display: Literal["summarized"] | None = None


class OutputFormat(Struct, kw_only=True):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, kw_only=True, forbid_unknown_fields=True):
    """The form of the answer and how much effort it is worth."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class PromptBody(Struct, kw_only=True):
    """What makes the prompt."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    model: str | None = None
    system: str | list[Part] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    speed: Literal["standard"] | None = None


class CountTokensBody(PromptBody, kw_only=True):
    """The prompt whose tokens are to be counted."""


class MessagesBody(PromptBody, kw_only=True):
    """The prompt, and how to go on from it."""

    max_tokens: Annotated[int, Meta(ge=1, le=INT32_MAX)]
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=INT32_MAX)] | None = None
    stream: bool | None = None
