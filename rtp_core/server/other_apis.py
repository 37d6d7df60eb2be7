"""Operations in the words of other APIs than chat completions."""

from __future__ import annotations

from functools import partial

from rtp_core.server.anthropic.errors import MESSAGES_SHAPE
from rtp_core.server.anthropic.plan import count_tokens, messages
from rtp_core.server.operation import Operation
from rtp_core.server.responses.endpoints import responses, stored_response
from rtp_core.server.schema.anthropic import MESSAGES_IGNORED, CountTokensBody, MessagesBody
from rtp_core.server.schema.responses import ResponsesBody
from rtp_core.server.service import Service


def other_apis(service: Service) -> list[Operation]:
    """OpenAI's Responses and Anthropic's Messages."""
    stored = partial(stored_response, service)
    return [
        Operation(
            "POST",
            "/v1/responses",
            "Answer a conversation, in the words of OpenAI's Responses API.",
            partial(responses, service),
            body=ResponsesBody,
            needs_model=True,
            streams=True,
        ),
        Operation("GET", "/v1/responses/{id}", "404: nothing is stored.", stored),
        Operation("DELETE", "/v1/responses/{id}", "404: nothing is stored.", stored),
        Operation(
            "POST",
            "/v1/messages",
            "Answer a conversation, in the words of Anthropic's Messages API.",
            partial(messages, service),
            body=MessagesBody,
            needs_model=True,
            streams=True,
            errors=MESSAGES_SHAPE,
            ignored=MESSAGES_IGNORED,
        ),
        Operation(
            "POST",
            "/v1/messages/count_tokens",
            "The length of a conversation's prompt.",
            partial(count_tokens, service),
            body=CountTokensBody,
            needs_model=True,
            errors=MESSAGES_SHAPE,
            ignored=MESSAGES_IGNORED,
        ),
    ]
