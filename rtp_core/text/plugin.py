"""Offers of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtp_core.api import BuildContext, Offer, ReasoningFormat, Role, ToolFormat, hookimpl


@hookimpl
def rtp_answer_parsers() -> tuple[Offer, ...]:
    """The formats of common families, under vLLM's names."""
    from rtp_core.text.formats import tool_formats as tools
    from rtp_core.text.formats.thinking import ThinkFormat

    return (
        _calls("hermes", tools.hermes),
        _calls("qwen3_coder", tools.qwen3_coder_xml),
        _calls("llama3_json", tools.llama3_json),
        _calls("mistral", tools.mistral),
        _calls("pythonic", tools.pythonic),
        _calls("deepseek_v3", tools.deepseek_v3),
        _thoughts("qwen3", ThinkFormat()),
        _thoughts("deepseek_r1", ThinkFormat(begins_inside=True)),
    )


def _calls(name: str, make: Callable[[], ToolFormat]) -> Offer:
    def build(context: BuildContext, options: Any) -> ToolFormat:
        del context, options
        return make()

    return Offer(Role.TOOL_PARSER, name, build)


def _thoughts(name: str, form: ReasoningFormat) -> Offer:
    def build(context: BuildContext, options: Any) -> ReasoningFormat:
        del context, options
        return form

    return Offer(Role.REASONING_PARSER, name, build)
