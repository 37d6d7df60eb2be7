"""A validated Responses request on its way to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rtp_core.api import Request
from rtp_core.errors import RequestError
from rtp_core.server.accounting import Account
from rtp_core.server.chat_plan import ChatPlan
from rtp_core.server.dialect import Dialect, chat_plan
from rtp_core.server.exchange import Call
from rtp_core.server.plan import Reading
from rtp_core.server.rendering import Telling
from rtp_core.server.responses.reading import NAMES, chat_fields
from rtp_core.server.responses.telling import ResponseRenderer
from rtp_core.server.schema.responses import ResponsesBody
from rtp_core.server.service import Service

_TOO_LONG = "context_length_exceeded"


def read_plan(body: ResponsesBody, service: Service) -> ResponsesPlan:
    """All checks that need no tokens. Raises RequestError naming the field."""
    if body.background:
        raise RequestError(
            "background",
            "background: this server answers in the foreground only",
            code="unsupported_parameter",
        )
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options", "stream_options needs stream: true")
    fields, places = chat_fields(body)
    dialect = Dialect(NAMES, places)
    return ResponsesPlan(body, chat_plan(fields, service, dialect), dialect)


@dataclass(frozen=True, slots=True)
class ResponsesPlan:
    """A validated request: the conversation, and how it was asked."""

    body: ResponsesBody
    chat: ChatPlan
    dialect: Dialect

    @property
    def stream(self) -> bool:
        """As plan.Plan."""
        return bool(self.body.stream)

    @property
    def places(self) -> int:
        """As plan.Plan."""
        return self.chat.places

    @property
    def reading(self) -> Reading | None:
        """As plan.Plan."""
        return self.chat.reading

    async def requests(self, call: Call, service: Service) -> list[Request]:
        """One request; with ``truncation: auto`` from as much of the conversation as fits."""
        with self.dialect.spoken():
            try:
                return await self.chat.requests(call, service)
            except RequestError as error:
                if error.code != _TOO_LONG or self.body.truncation != "auto":
                    raise
                shorter = await self._shortened(call, service)
                if shorter is None:
                    raise
                return shorter

    def renderer(
        self, requests: Sequence[Request], service: Service, account: Account
    ) -> ResponseRenderer:
        """As plan.Plan."""
        chat = self.chat
        telling = Telling("resp", chat.model, chat.body, requests, service.room.tokenizer, account)
        return ResponseRenderer(telling, self.body)

    async def _shortened(self, call: Call, service: Service) -> list[Request] | None:
        """The longest end of the conversation that fits behind its system turns, if any does.

        It begins with a user's turn, so that no output of a tool is left without its call.
        """
        messages = self.chat.messages
        starts = [index for index, one in enumerate(messages) if one["role"] == "user"]
        head = [one for one in messages[: starts[0]] if one["role"] == "system"] if starts else []
        low, high, best = 1, len(starts), None
        while low < high:
            middle = (low + high) // 2
            plan = replace(self.chat, messages=[*head, *messages[starts[middle] :]])
            try:
                best, high = await plan.requests(call, service), middle
            except RequestError as error:
                if error.code != _TOO_LONG:
                    raise
                low = middle + 1
        return best
