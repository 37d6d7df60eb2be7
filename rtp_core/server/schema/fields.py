"""Field types that several bodies share. Numeric bounds are those of `SamplingParams`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from rtp_core.api.sampling_params import MAX_CHOICES, MAX_LOGPROBS, SEED_BOUND

MAX_PROMPTS = 128
MAX_ID_CHARS = 128
MAX_STOP_TOKEN_IDS = 1024
INT32_MAX = 2**31 - 1

Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Logprobs = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]
Count = Annotated[int, Meta(ge=0, le=INT32_MAX)]
TokenId = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(gt=0, le=1)]
MinP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=100)]
TopK = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
Seed = Annotated[int, Meta(ge=-SEED_BOUND, le=SEED_BOUND - 1)]
Salt = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
RequestId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,128}\Z")]
Priority = Annotated[int, Meta(ge=-INT32_MAX, le=INT32_MAX)]


class StreamOptions(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a stream carries besides text. `include_obfuscation` is accepted and ignored."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchemaFormat(Struct, kw_only=True, forbid_unknown_fields=True):
    """`strict` changes nothing: every schema is kept to the letter."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, kw_only=True, forbid_unknown_fields=True):
    """``text``, ``json_object``, or ``json_schema`` with its schema."""

    type: str
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(Struct, kw_only=True, forbid_unknown_fields=True):
    """Exactly one: a JSON Schema, a regular expression, strings, a Lark grammar, any object."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class GenerationBody(Struct, kw_only=True):
    """Fields of every endpoint that generates. Absent and null mean the default."""

    model: str | None = None
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    n: Choices | None = None
    best_of: Choices | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)] | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    allowed_token_ids: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    bad_words: list[str] | None = None
    prompt_logprobs: Logprobs | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=1, le=INT32_MAX)] | None = None
    cache_salt: Salt | None = None
    priority: Priority | None = None
    request_id: RequestId | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
