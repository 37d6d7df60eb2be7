"""The tool formats that come with rtp, each a syntax, its marks and its grammar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtp_core.api import AnswerParser, Tool, ToolRules
from rtp_core.text.formats import deepseek, qwen3_coder
from rtp_core.text.formats.call_parser import CallParser, Syntax
from rtp_core.text.formats.calls import new_short_id
from rtp_core.text.formats.grammar import (
    Spell,
    arguments_schema,
    call_object,
    grammar,
    json_value,
    text,
)
from rtp_core.text.formats.pythonic import PythonBody
from rtp_core.text.formats.tagged_json import ClosedJson, MistralJson, SeveralJson

HERMES_OPEN, HERMES_CLOSE = "<tool_call>", "</tool_call>"
MISTRAL = "[TOOL_CALLS]"
PYTHON_TAG = "<|python_tag|>"
PYTHON_START, PYTHON_END = "<|python_start|>", "<|python_end|>"
_LINE = "\n"


@dataclass(frozen=True, slots=True)
class Format:
    """A ToolFormat made of its parts."""

    marks: tuple[str, ...]
    syntax: Callable[[Mapping[str, Tool]], Syntax]
    write: Callable[[ToolRules, Spell], str | None]

    def parser(self, tools: Sequence[Tool]) -> AnswerParser:
        """As ToolFormat."""
        known = {tool.name: tool for tool in tools}
        return CallParser(self.syntax(known), frozenset(known))

    def grammar(self, rules: ToolRules, spell: Spell) -> str | None:
        """As ToolFormat."""
        return self.write(rules, spell)


def hermes() -> Format:
    """Hermes, Qwen2.5, Qwen3, SmolLM2."""
    syntax = Syntax((HERMES_OPEN,), lambda: ClosedJson(HERMES_CLOSE))

    def write(rules: ToolRules, spell: Spell) -> str:
        def call(tool: Tool, name: str) -> list[str]:
            value = call_object(tool, arguments="arguments")
            opening = f"{spell(HERMES_OPEN)} {text(_LINE)}"
            return [
                f"{name}: {opening} {name}_j {text(_LINE)} {spell(HERMES_CLOSE)}",
                f"{name}_j: {value}",
            ]

        return grammar(rules, call, between=[text("\n")])

    return Format((HERMES_OPEN, HERMES_CLOSE), lambda _: syntax, write)


def mistral() -> Format:
    """Mistral; ids have nine characters."""
    syntax = Syntax((MISTRAL,), MistralJson, new_id=new_short_id)

    def write(rules: ToolRules, spell: Spell) -> str:
        def call(tool: Tool, name: str) -> list[str]:
            return [f"{name}: {call_object(tool, arguments='arguments')}"]

        before = [spell(MISTRAL), text("[")]
        return grammar(rules, call, before=before, between=[text(", ")], after=[text("]")])

    return Format((MISTRAL, "[ARGS]", "[CALL_ID]"), lambda _: syntax, write)


def llama3_json() -> Format:
    """Llama 3.1 and 3.2."""
    syntax = Syntax((PYTHON_TAG,), SeveralJson, bare="{")

    def write(rules: ToolRules, spell: Spell) -> str:
        def call(tool: Tool, name: str) -> list[str]:
            return [f"{name}: {call_object(tool, arguments='parameters')}"]

        return grammar(rules, call, between=[text("; ")])

    return Format((PYTHON_TAG,), lambda _: syntax, write)


def deepseek_v3() -> Format:
    """DeepSeek V3 and R1."""
    syntax = Syntax(
        (deepseek.CALL_BEGIN,),
        deepseek.DeepSeekBody,
        noise=(deepseek.CALLS_BEGIN, deepseek.CALLS_END),
    )

    def write(rules: ToolRules, spell: Spell) -> str:
        def call(tool: Tool, name: str) -> list[str]:
            schema, definitions = arguments_schema(tool)
            begin = f"{spell(deepseek.CALL_BEGIN)} {text('function')} {spell(deepseek.SEPARATOR)}"
            head, foot = text(f"{tool.name}\n```json\n"), text("\n```")
            return [
                f"{name}: {begin} {head} {name}_j {foot} {spell(deepseek.CALL_END)}",
                f"{name}_j: {json_value({**schema, **definitions})}",
            ]

        before, after = [spell(deepseek.CALLS_BEGIN)], [spell(deepseek.CALLS_END)]
        return grammar(rules, call, before=before, between=[text("\n")], after=after)

    marks = (
        deepseek.CALLS_BEGIN,
        deepseek.CALLS_END,
        deepseek.CALL_BEGIN,
        deepseek.CALL_END,
        deepseek.SEPARATOR,
    )
    return Format(marks, lambda _: syntax, write)


def qwen3_coder_xml() -> Format:
    """Qwen3-Coder."""

    def syntax(tools: Mapping[str, Tool]) -> Syntax:
        return Syntax(
            (qwen3_coder.FUNCTION,),
            lambda: qwen3_coder.XmlBody(tools),
            noise=(qwen3_coder.OPEN,),
        )

    def write(rules: ToolRules, spell: Spell) -> str:
        def call(tool: Tool, name: str) -> list[str]:
            head, foot = text(f"\n<function={tool.name}>\n"), text("</function>\n")
            schema, definitions = arguments_schema(tool)
            required = schema.get("required", ())
            parts = [f"{name}_{key}" for key in range(len(schema.get("properties", {})))]
            kept = schema.get("properties", {}).items()
            marked = [
                part if key in required else f"{part}?"
                for part, (key, _) in zip(parts, kept, strict=True)
            ]
            lines = [
                f"{name}: {spell(qwen3_coder.OPEN)} {head} {' '.join(marked)} {foot} "
                f"{spell(qwen3_coder.CLOSE)}"
            ]
            for part, (key, given) in zip(parts, kept, strict=True):
                lines.append(f"{part}: {text(f'{qwen3_coder.PARAMETER}{key}>{_LINE}')} {part}_v")
                lines.extend(_value(f"{part}_v", given, definitions))
            return lines

        return grammar(rules, call, between=[text("\n")])

    return Format((qwen3_coder.OPEN, qwen3_coder.CLOSE), syntax, write)


def pythonic() -> Format:
    """Llama 3.2 and 4; it has no grammar of its own."""
    syntax = Syntax((), PythonBody, bare="[", noise=(PYTHON_START, PYTHON_END))
    return Format((PYTHON_START, PYTHON_END), lambda _: syntax, lambda rules, spell: None)


def _value(name: str, schema: Any, definitions: Mapping[str, Any]) -> list[str]:
    """Rules of an argument and its closing tag.

    Strings go without quotes and end where the tag stands; all other values are JSON.
    """
    end = text(f"{_LINE}{qwen3_coder.PARAMETER_END}{_LINE}")
    if not qwen3_coder.is_string(schema):
        value = {**schema, **definitions} if isinstance(schema, Mapping) else {}
        return [f"{name}: {name}_j {end}", f"{name}_j: {json_value(value)}"]
    choices = [one for one in schema.get("enum", ()) if isinstance(one, str)]
    if choices:
        return [f"{name}: ({' | '.join(map(text, choices))}) {end}"]
    return [f"{name}[suffix={end}]: /(?s:.*)/"]
