"""The body of /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from rtp_core.server.schema.fields import (
    INT32_MAX,
    Count,
    Logprobs,
    MinP,
    Penalty,
    Priority,
    RepetitionPenalty,
    RequestId,
    Salt,
    Seed,
    Share,
    Temperature,
    TopK,
)
from rtp_core.server.schema.refused import REFUSED

_STATE = "this server keeps no state between requests; send the whole conversation as input"

RESPONSES_REFUSED = {
    **REFUSED,
    "previous_response_id": _STATE,
    "conversation": _STATE,
    "prompt": "prompts are not stored on this server; send instructions and input",
    "context_management": "this server does not compact conversations; use truncation",
    "background_options": "this server answers in the foreground only",
    "access_programs": "is not known to this server",
    "image": "this server generates text only",
}

Metadata = Annotated[
    dict[
        Annotated[str, Meta(max_length=64)],
        Annotated[str, Meta(max_length=512)],
    ],
    Meta(max_length=16),
]


class InputPart(Struct, kw_only=True):
    """A part of an item's content, summary or output."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    detail: str | None = None


class InputItem(Struct, kw_only=True):
    """A message (the default), a call of a function, its output, or reasoning.

    Further keys, which clients send back from answers, are ignored.
    """

    type: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None
    encrypted_content: str | None = None


class Format(Struct, kw_only=True, omit_defaults=True):
    """The form of the text: free, any JSON object, or JSON that follows a schema."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(Struct, kw_only=True, forbid_unknown_fields=True):
    """`verbosity` is accepted and ignored."""

    format: Format | None = None
    verbosity: str | None = None


class Reasoning(Struct, kw_only=True, forbid_unknown_fields=True):
    """How much to reason. Reasoning is told in full; `auto` is the only summary."""

    effort: str | None = None
    summary: Literal["auto"] | None = None


class ObfuscationOptions(Struct, kw_only=True, forbid_unknown_fields=True):
    """`include_obfuscation` is accepted and ignored."""

    include_obfuscation: bool | None = None


class ResponsesBody(Struct, kw_only=True):
    """OpenAI's fields, then those of vLLM that choose how tokens are drawn."""

    input: str | Annotated[list[InputItem], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=1, le=INT32_MAX)] | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=INT32_MAX)] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_logprobs: Logprobs | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    metadata: Metadata | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ObfuscationOptions | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    cache_salt: Salt | None = None
    priority: Priority | None = None
    request_id: RequestId | None = None
    chat_template_kwargs: dict[str, Any] | None = None
