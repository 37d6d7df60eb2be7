"""A validated conversation on its way to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rtp_core.api import Request, SamplingParams
from rtp_core.server.accounting import Account
from rtp_core.server.chat_answer import ChatRenderer
from rtp_core.server.chat_reading import ChatReading
from rtp_core.server.exchange import Call
from rtp_core.server.prompts import ChatOptions
from rtp_core.server.rendering import Telling
from rtp_core.server.requests import check_structured, engine_request, kept
from rtp_core.server.sampling import within_context
from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.service import Service
from rtp_core.text.answer_reader import Reading


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """A validated conversation."""

    body: ChatBody
    model: str
    sampling: SamplingParams
    messages: list[dict[str, Any]]
    options: ChatOptions
    answers: ChatReading

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
        return self.answers.reading

    async def prompt(self, service: Service) -> Sequence[int]:
        """The rendered conversation."""
        return kept(await service.room.encode_chat(self.messages, self.options), self.body)

    async def requests(self, call: Call, service: Service) -> list[Request]:
        """One request, from the rendered conversation."""
        ids = await self.prompt(service)
        sampling = self.answers.constrained(self.sampling, ids, service.room.tokenizer)
        sampling = within_context(sampling, len(ids), service.info, "messages", None)
        await check_structured(self.body, sampling, service, forced=self.answers.forced)
        return [engine_request(self.body, call, ids, sampling, service.room.tokenizer)]

    def renderer(
        self, requests: Sequence[Request], service: Service, account: Account
    ) -> ChatRenderer:
        """As plan.Plan."""
        return ChatRenderer(
            Telling("chatcmpl", self.model, self.body, requests, service.room.tokenizer, account),
            self.answers.manner,
        )
