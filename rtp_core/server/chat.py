"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_core.errors import RequestError
from rtp_core.server.body import parse
from rtp_core.server.chat_plan import ChatPlan
from rtp_core.server.chat_reading import chat_reading
from rtp_core.server.exchange import Answer, Call
from rtp_core.server.messages import template_messages
from rtp_core.server.plan import answer
from rtp_core.server.prompts import ChatOptions, PromptRoom
from rtp_core.server.sampling import check_generation, sampling_params
from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.service import Service
from rtp_core.server.tool_prompt import shown_tools


async def chat_completions(service: Service, call: Call) -> Answer:
    """Validate, then answer whole or as a stream."""
    return await answer(read_plan(parse(call.body, ChatBody), service), call, service)


def read_plan(body: ChatBody, service: Service) -> ChatPlan:
    """All checks that need no tokens. Raises RequestError naming the field."""
    model = service.check_model(body.model)
    check_generation(body, priorities=service.config.scheduling.policy == "priority")
    check_unavailable(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs", "top_logprobs needs logprobs: true")
    limit = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    max_tokens = getattr(body, limit)
    if max_tokens == 0:
        raise RequestError(limit, f"{limit} must be at least 1")
    sampling = sampling_params(
        body,
        service.info,
        max_tokens=max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    answers = chat_reading(body, service)
    messages, shown = shown_tools(template_messages(body.messages), answers.described, service.room)
    options = ChatOptions(
        add_generation_prompt=generation_prompt(
            body.add_generation_prompt, body.continue_final_message
        ),
        continue_final_message=bool(body.continue_final_message),
        variables=template_variables(body, service.room),
        tools=shown,
    )
    return ChatPlan(body, model, sampling, messages, options, answers)


def generation_prompt(wanted: bool | None, continues: bool | None) -> bool:
    """On by default, except when the final message is to be continued."""
    if wanted and continues:
        raise RequestError(
            "continue_final_message",
            "continue_final_message and add_generation_prompt exclude each other",
            remedy="set add_generation_prompt to false",
        )
    return not continues if wanted is None else wanted


def check_unavailable(body: ChatBody) -> None:
    """Fields that have one harmless value; every other is refused until the feature is there."""
    for name, given, reason in (
        (
            "modalities",
            body.modalities is not None and body.modalities != ["text"],
            'this server generates text only: use ["text"]',
        ),
        (
            "add_special_tokens",
            bool(body.add_special_tokens),
            "the chat template places the special tokens of a conversation",
        ),
    ):
        if given:
            raise RequestError(name, f"{name}: {reason}", code="unsupported_parameter")


def template_variables(body: ChatBody, room: PromptRoom) -> Mapping[str, Any]:
    """chat_template_kwargs, and reasoning_effort under the name this template reads."""
    variables = dict(body.chat_template_kwargs or {})
    effort = body.reasoning_effort
    if effort is None:
        return variables
    if room.declares("reasoning_effort"):
        variables.setdefault("reasoning_effort", effort)
    elif room.declares("enable_thinking"):
        variables.setdefault("enable_thinking", effort != "none")
    else:
        raise RequestError(
            "reasoning_effort", "this model's chat template has no setting for reasoning"
        )
    return variables
