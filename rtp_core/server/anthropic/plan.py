"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rtp_core.api import Request
from rtp_core.server.accounting import Account
from rtp_core.server.anthropic.reading import NAMES, chat_fields
from rtp_core.server.anthropic.telling import MessageRenderer
from rtp_core.server.body import parse
from rtp_core.server.chat_plan import ChatPlan
from rtp_core.server.dialect import Dialect, chat_plan
from rtp_core.server.exchange import Answer, Call, Reply
from rtp_core.server.plan import Reading, answer
from rtp_core.server.rendering import Telling
from rtp_core.server.schema.anthropic import (
    MESSAGES_IGNORED,
    MESSAGES_REFUSED,
    CountTokensBody,
    MessagesBody,
    PromptBody,
)
from rtp_core.server.service import Service


async def messages(service: Service, call: Call) -> Answer:
    """Validate, then answer whole or as a stream."""
    body = parse(call.body, MessagesBody, MESSAGES_REFUSED, MESSAGES_IGNORED)
    return await answer(read_plan(body, service), call, service)


async def count_tokens(service: Service, call: Call) -> Answer:
    """How long the prompt of these messages is."""
    body = parse(call.body, CountTokensBody, MESSAGES_REFUSED, MESSAGES_IGNORED)
    plan = read_plan(body, service)
    with plan.dialect.spoken():
        token_ids = await plan.chat.prompt(service)
    return Reply.json({"input_tokens": len(token_ids)})


def read_plan(body: PromptBody, service: Service) -> MessagesPlan:
    """All checks that need no tokens. Raises RequestError naming the field."""
    room = service.room
    can_think = room.declares("reasoning_effort") or room.declares("enable_thinking")
    fields, places = chat_fields(body, can_think=can_think)
    dialect = Dialect(NAMES, places)
    return MessagesPlan(chat_plan(fields, service, dialect), dialect)


@dataclass(frozen=True, slots=True)
class MessagesPlan:
    """A validated request."""

    chat: ChatPlan
    dialect: Dialect

    @property
    def stream(self) -> bool:
        """As plan.Plan."""
        return self.chat.stream

    @property
    def places(self) -> int:
        """As plan.Plan."""
        return self.chat.places

    @property
    def reading(self) -> Reading | None:
        """As plan.Plan."""
        return self.chat.reading

    async def requests(self, call: Call, service: Service) -> list[Request]:
        """One request. `max_tokens` is an upper bound: what does not fit the context is cut."""
        unlimited = replace(self.chat, sampling=replace(self.chat.sampling, max_tokens=None))
        with self.dialect.spoken():
            (request,) = await unlimited.requests(call, service)
        room = service.info.max_model_len - len(request.prompt_token_ids)
        most = min(self.chat.sampling.max_tokens or room, room)
        return [replace(request, sampling=replace(request.sampling, max_tokens=most))]

    def renderer(
        self, requests: Sequence[Request], service: Service, account: Account
    ) -> MessageRenderer:
        """As plan.Plan."""
        chat = self.chat
        telling = Telling("msg", chat.model, chat.body, requests, service.room.tokenizer, account)
        return MessageRenderer(telling, chat.sampling.max_tokens)
