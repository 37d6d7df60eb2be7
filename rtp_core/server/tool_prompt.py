"""Tools for a model whose chat template has no place for them: told in the system turn.

Calls are then written as Hermes does, in the conversation so far as in the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rtp_core.errors import RequestError
from rtp_core.server.answer_formats import FALLBACK
from rtp_core.server.prompts import PromptRoom
from rtp_core.text.formats.tool_formats import HERMES_CLOSE, HERMES_OPEN

_INTRODUCTION = (
    "You can call these functions when they help to answer. Each line describes one as JSON:\n"
    "<tools>\n{tools}\n</tools>\n"
    "To call a function, write its name and arguments as JSON between tags:\n"
    f'{HERMES_OPEN}\n{{{{"name": "...", "arguments": {{{{...}}}}}}}}\n{HERMES_CLOSE}'
)

Turn = dict[str, Any]
Shown = Sequence[Mapping[str, Any]] | None


def shown_tools(messages: list[Turn], tools: Shown, room: PromptRoom) -> tuple[list[Turn], Shown]:
    """Messages, and the tools for the template; without a place there, messages tell of them."""
    if room.declares("tools"):
        return messages, tools
    turns = messages if room.shows_calls else [_written(turn) for turn in messages]
    if tools is None:
        return turns, None
    if room.formats.calls_name not in (None, FALLBACK):
        raise RequestError(
            "tools",
            "the model's chat template has no place for tools",
            remedy="start with --chat-template FILE, or with --tool-call-parser auto",
        )
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _INTRODUCTION.format(tools=lines)
    if turns and turns[0]["role"] == "system":
        first = {**turns[0], "content": f"{turns[0]['content']}\n\n{text}"}
        return [first, *turns[1:]], None
    return [{"role": "system", "content": text}, *turns], None


def _written(turn: Turn) -> Turn:
    """An assistant's calls as part of its text."""
    if "tool_calls" not in turn:
        return turn
    rest = {name: value for name, value in turn.items() if name != "tool_calls"}
    calls = [
        f"{HERMES_OPEN}\n{json.dumps(call['function'], ensure_ascii=False)}\n{HERMES_CLOSE}"
        for call in turn["tool_calls"]
    ]
    said = [turn["content"]] if turn["content"] else []
    return {**rest, "content": "\n".join([*said, *calls])}
