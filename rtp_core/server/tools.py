"""Tools of a chat request: checked, and put into the forms that template and reader need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from rtp_core.api import SamplingParams, StructuredOutput, Tool, ToolFormat, ToolRules
from rtp_core.errors import RequestError
from rtp_core.server.answer_formats import AnswerFormats
from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.schema.tools import (
    MAX_SCHEMA_NESTING,
    MAX_TOOLS_BYTES,
    NamedToolChoice,
    ToolChoice,
    ToolDefinition,
)
from rtp_core.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Tooling:
    """Tools that an answer may call. `described` is what a template shows the model.

    `mode` is ``auto`` (the model decides), ``required`` or ``named`` (`callable_tools` are
    then the one that was named).
    """

    described: Sequence[Mapping[str, Any]]
    callable_tools: Sequence[Tool]
    mode: Literal["auto", "required", "named"]
    format: ToolFormat
    parallel: bool = True

    @property
    def max_calls(self) -> int | None:
        """Calls after which an answer ends; None for any number."""
        return None if self.parallel and self.mode != "named" else 1

    def constrained(self, sampling: SamplingParams, tokenizer: Tokenizer) -> SamplingParams:
        """`sampling` under a grammar of calls, where calls are asked for.

        An answer that may be a call, or else must have a format, is one of the two.
        """
        wanted = sampling.structured
        if self.mode == "auto" and wanted is None:
            return sampling
        rules = ToolRules(self.callable_tools, self.max_calls is None)
        grammar = self.format.grammar(rules, lambda mark: _spelt(tokenizer, mark))
        if grammar is None:
            return sampling
        if self.mode == "auto":
            grammar = _either(grammar, wanted)
        try:
            structured = StructuredOutput("grammar", grammar)
        except RequestError as error:
            raise RequestError("tools", f"the tools are too large: {error.message}") from error
        return replace(sampling, structured=structured)


def read_tools(body: ChatBody, formats: AnswerFormats, *, auto: bool) -> Tooling | None:
    """The tools of a request; None when none may be called.

    `auto` says whether the server lets models decide. Raises RequestError naming the field.
    """
    choice = body.tool_choice
    if not body.tools:
        if choice not in (None, "none"):
            raise RequestError("tool_choice", "tool_choice needs tools")
        if body.parallel_tool_calls is not None and body.tools is None:
            raise RequestError("parallel_tool_calls", "parallel_tool_calls needs tools")
        return None
    tools = _checked(body.tools)
    if choice == "none":
        return None
    if isinstance(choice, NamedToolChoice):
        tools = [tool for tool in tools if tool.name == choice.function.name]
        if not tools:
            raise RequestError("tool_choice.function.name", "tools has no function of this name")
    mode = "named" if isinstance(choice, NamedToolChoice) else choice or "auto"
    return Tooling(
        [msgspec.to_builtins(_described(tool)) for tool in body.tools],
        tools,
        mode,  # type: ignore[arg-type]
        _format(formats, choice, auto),
        body.parallel_tool_calls is not False,
    )


def _format(formats: AnswerFormats, choice: ToolChoice | None, auto: bool) -> ToolFormat:
    """The model's own format, or one that can be forced."""
    if choice in (None, "auto"):
        if formats.calls is None or not auto:
            raise _no_auto(formats)
        return formats.calls
    own = formats.calls
    if own is not None and own.grammar(ToolRules(()), repr) is not None:
        return own
    if formats.forced is None:
        raise _no_auto(formats)
    return formats.forced


def _no_auto(formats: AnswerFormats) -> RequestError:
    if formats.calls is None:
        reason = "it is not known how this model writes calls"
        remedy = "start with --tool-call-parser NAME, or send tool_choice required or none"
    else:
        reason = "this server does not let the model choose to call tools"
        remedy = "start with --enable-auto-tool-choice"
    return RequestError("tool_choice", f'"auto": {reason}', remedy=remedy)


def _checked(definitions: Sequence[ToolDefinition]) -> list[Tool]:
    if len(msgspec.json.encode(definitions)) > MAX_TOOLS_BYTES:
        raise RequestError("tools", f"tools have at most {MAX_TOOLS_BYTES} bytes")
    tools: dict[str, Tool] = {}
    for index, definition in enumerate(definitions):
        place = f"tools[{index}].function"
        function = definition.function
        if function.name in tools:
            raise RequestError(f"{place}.name", "two tools have the same name")
        if function.parameters is not None:
            _check_schema(function.parameters, f"{place}.parameters")
        tools[function.name] = Tool(function.name, function.description, function.parameters)
    return list(tools.values())


def _check_schema(schema: Mapping[str, Any], place: str) -> None:
    if schema.get("type", "object") != "object":
        raise RequestError(f"{place}.type", 'arguments are an object: type is "object"')
    if not isinstance(schema.get("properties", {}), dict):
        raise RequestError(f"{place}.properties", "properties is an object of schemas")
    names = schema.get("required", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"{place}.required", "required is a list of names")
    level: list[Any] = [schema]
    for _ in range(MAX_SCHEMA_NESTING):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise RequestError(place, f"a schema is nested at most {MAX_SCHEMA_NESTING} deep")


def _inside(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _described(tool: ToolDefinition) -> dict[str, Any]:
    """As OpenAI's object; templates print it, so that absent keys stay absent."""
    function = tool.function
    said: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        said["description"] = function.description
    if function.parameters is not None:
        said["parameters"] = function.parameters
    return {"type": "function", "function": said}


def _spelt(tokenizer: Tokenizer, mark: str) -> str:
    """A mark in Lark: by id if it is a special token, else as its characters."""
    special = tokenizer.ids_of((mark,)) & tokenizer.special_ids
    if special:
        return f"<[{min(special)}]>"
    return msgspec.json.encode(mark).decode()


def _either(calls: str, wanted: StructuredOutput | None) -> str:
    """Calls, or an answer in the format that was asked for."""
    if wanted is None or wanted.kind not in ("json_schema", "json_object"):
        raise RequestError(
            "tool_choice",
            "a tool may be called, or the answer kept to this constraint, but not both",
            remedy="set tool_choice to none or required",
        )
    schema = msgspec.json.decode(wanted.text) if wanted.text else {"type": "object"}
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": {"whitespace_flexible": False}}
    answer = msgspec.json.encode(schema).decode()
    return f"start: calls | answer\nanswer: %json {answer}\n" + calls.replace("start:", "calls:", 1)
