"""What a chat request wants of its answers: which tools they call, and how they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rtp_core.api import ReasoningFormat, SamplingParams
from rtp_core.server.chat_answer import Manner
from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.service import Service
from rtp_core.server.tools import Tooling, read_tools
from rtp_core.text.answer_reader import Reading, prompt_tail
from rtp_core.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ChatReading:
    """`reasoning` None: the model is not known to think. `tooling` None: no tool is called."""

    tooling: Tooling | None
    reasoning: ReasoningFormat | None
    manner: Manner

    @property
    def described(self) -> Sequence[Mapping[str, Any]] | None:
        """The tools as a template shows them."""
        return None if self.tooling is None else self.tooling.described

    @property
    def forced(self) -> bool:
        """True when answers must be calls."""
        return self.tooling is not None and self.tooling.mode != "auto"

    @property
    def reading(self) -> Reading | None:
        """How answers are read; None when all of an answer is content."""
        tooling = self.tooling
        if tooling is None:
            return None if self.reasoning is None else Reading(self.reasoning)
        return Reading(
            self.reasoning, tooling.format, tooling.callable_tools, max_calls=tooling.max_calls
        )

    def constrained(
        self, sampling: SamplingParams, prompt: Sequence[int], tokenizer: Tokenizer
    ) -> SamplingParams:
        """The sampling with what calls demand; a constraint waits for the end of thinking."""
        if self.tooling is not None:
            sampling = self.tooling.constrained(sampling, tokenizer)
        if sampling.structured is None or self.reasoning is None:
            return sampling
        if not self.reasoning.thinks(prompt_tail(tokenizer, prompt)):
            return sampling
        end = self.reasoning.close
        marker = tokenizer.encode(end, add_special_tokens=False, allow_special=True)
        return replace(sampling, structured_after=tuple(marker))


def chat_reading(body: ChatBody, service: Service) -> ChatReading:
    """Raises RequestError naming the field."""
    server, formats = service.config.server, service.room.formats
    tooling = read_tools(body, formats, auto=server.enable_auto_tool_choice)
    named = tooling is not None and tooling.mode == "named"
    manner = Manner(reasoning_names(body, both=server.reasoning_content), named_call=named)
    return ChatReading(tooling, formats.reasoning, manner)


def reasoning_names(body: ChatBody, *, both: bool) -> tuple[str, ...]:
    """Under which names thoughts are told: none when the client wants none."""
    if body.include_reasoning is False:
        return ()
    return ("reasoning", "reasoning_content") if both else ("reasoning",)
