"""A validated conversation on its way to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rtp_core.api import ReasoningFormat, Request, SamplingParams
from rtp_core.server.accounting import Account
from rtp_core.server.chat_answer import ChatRenderer, Manner
from rtp_core.server.exchange import Call
from rtp_core.server.prompts import ChatOptions
from rtp_core.server.rendering import Telling
from rtp_core.server.requests import check_structured, engine_request, kept
from rtp_core.server.sampling import within_context
from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.service import Service
from rtp_core.server.tools import Tooling
from rtp_core.text.answer_reader import Reading, prompt_tail
from rtp_core.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """A validated conversation."""

    body: ChatBody
    model: str
    sampling: SamplingParams
    messages: list[dict[str, Any]]
    options: ChatOptions
    tooling: Tooling | None
    reasoning: ReasoningFormat | None
    manner: Manner

    @property
    def stream(self) -> bool:
        """As plan.Plan."""
        return bool(self.body.stream)

    @property
    def places(self) -> int:
        """As plan.Plan."""
        return self.sampling.n

    @property
    def reading(self) -> Reading | None:
        """As plan.Plan."""
        tooling = self.tooling
        if tooling is None:
            return None if self.reasoning is None else Reading(self.reasoning)
        return Reading(
            self.reasoning, tooling.format, tooling.callable_tools, max_calls=tooling.max_calls
        )

    async def prompt(self, service: Service) -> Sequence[int]:
        """The rendered conversation."""
        return kept(await service.room.encode_chat(self.messages, self.options), self.body)

    async def requests(self, call: Call, service: Service) -> list[Request]:
        """One request, from the rendered conversation."""
        ids = await self.prompt(service)
        sampling = self.constrained(ids, service.room.tokenizer)
        sampling = within_context(sampling, len(ids), service.info, "messages", None)
        await check_structured(self.body, sampling, service)
        return [engine_request(self.body, call, ids, sampling, service.room.tokenizer)]

    def constrained(self, prompt: Sequence[int], tokenizer: Tokenizer) -> SamplingParams:
        """The sampling with what calls demand; a constraint waits for the end of thinking."""
        sampling, reasoning = self.sampling, self.reasoning
        if self.tooling is not None:
            sampling = self.tooling.constrained(sampling, tokenizer)
        if sampling.structured is None or reasoning is None:
            return sampling
        if not reasoning.thinks(prompt_tail(tokenizer, prompt)):
            return sampling
        end = tokenizer.encode(reasoning.close, add_special_tokens=False, allow_special=True)
        return replace(sampling, structured_after=tuple(end))

    def renderer(
        self, requests: Sequence[Request], service: Service, account: Account
    ) -> ChatRenderer:
        """As plan.Plan."""
        return ChatRenderer(
            Telling("chatcmpl", self.model, self.body, requests, service.room.tokenizer, account),
            self.manner,
        )
