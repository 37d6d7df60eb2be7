"""Tools that a request offers, and which of them the model is to call."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 256 * 2**10
MAX_SCHEMA_NESTING = 48

ToolName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]


class FunctionDefinition(Struct, kw_only=True):
    """`parameters` is a JSON Schema of an object; `strict` changes nothing."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(Struct, kw_only=True):
    """A function of the client's; there are no other tools."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Struct, kw_only=True):
    """Names one of the tools."""

    name: str


class NamedToolChoice(Struct, kw_only=True):
    """The one tool to call."""

    type: Literal["function"]
    function: FunctionName


Tools = Annotated[list[ToolDefinition], Meta(max_length=MAX_TOOLS)]
ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice
