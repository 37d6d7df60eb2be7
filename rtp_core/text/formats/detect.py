"""Which formats a model writes, told by its chat template.

A template shows the model how calls look, so its text holds the format's marks. The first
rule that fits wins:

1. ``[TOOL_CALLS]``: mistral
2. ``<｜tool▁call▁begin｜>``: deepseek_v3
3. ``<function=`` and ``<parameter=``: qwen3_coder
4. ``<tool_call>``: hermes
5. ``<|python_tag|>``: llama3_json
6. ``[func_name1(``: pythonic
7. ``JSON for a function call`` and ``"parameters"``: llama3_json

and for thoughts: ``</think>`` is qwen3 if ``<think>`` is there too, else deepseek_r1.
"""

from __future__ import annotations

_TOOL_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mistral", ("[TOOL_CALLS]",)),
    ("deepseek_v3", ("<｜tool▁call▁begin｜>",)),
    ("qwen3_coder", ("<function=", "<parameter=")),
    ("hermes", ("<tool_call>",)),
    ("llama3_json", ("<|python_tag|>",)),
    ("pythonic", ("[func_name1(",)),
    ("llama3_json", ("JSON for a function call", '"parameters"')),
)
_REASONING_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qwen3", ("<think>", "</think>")),
    ("deepseek_r1", ("</think>",)),
)


def tool_format(template: str) -> str | None:
    """Name of the tool parser, or None when the template shows no calls."""
    return _first(_TOOL_RULES, template)


def reasoning_format(template: str) -> str | None:
    """Name of the reasoning parser, or None when the template knows no thoughts."""
    return _first(_REASONING_RULES, template)


def _first(rules: tuple[tuple[str, tuple[str, ...]], ...], template: str) -> str | None:
    return next((name for name, marks in rules if all(mark in template for mark in marks)), None)
