"""From request fields to `SamplingParams`, with the model's own defaults beneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rtp_core.api import SamplingParams
from rtp_core.engine.contract import ModelInfo
from rtp_core.errors import RequestError
from rtp_core.server.schema.fields import GenerationBody
from rtp_core.server.structured import structured_output

_PLAIN = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "min_tokens",
    "ignore_eos",
    "include_stop_str_in_output",
    "skip_special_tokens",
)


def sampling_params(
    body: GenerationBody, info: ModelInfo, *, max_tokens: int | None, logprobs: int | None
) -> SamplingParams:
    """What the body asks for. Raises RequestError naming the field."""
    values: dict[str, Any] = dict(info.defaults)
    if "top_k" in values:
        values["top_k"] = int(values["top_k"])
    for name in _PLAIN:
        value = getattr(body, name)
        if value is not None:
            values[name] = value
    stop = () if body.stop is None else body.stop
    return SamplingParams(
        **values,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        stop_token_ids=_inside("stop_token_ids", body.stop_token_ids, info),
        allowed_token_ids=_inside("allowed_token_ids", body.allowed_token_ids, info) or None,
        bad_words=tuple(body.bad_words or ()),
        prompt_logprobs=body.prompt_logprobs,
        max_tokens=max_tokens,
        logprobs=logprobs,
        logit_bias=_logit_bias(body.logit_bias or {}, info.vocab_size),
        structured=structured_output(body),
    )


def within_context(
    sampling: SamplingParams, num_prompt: int, info: ModelInfo, param: str, usual: int | None
) -> SamplingParams:
    """`sampling` with a completion that fits the context beside the prompt.

    A client that gave no `max_tokens` gets `usual` or what is left (None: all that is left).
    Raises ``context_length_exceeded`` naming `param`.
    """
    longest, wanted = info.max_model_len, sampling.max_tokens
    if num_prompt + (1 if wanted is None else wanted) > longest:
        asked = "" if wanted is None else f" and {wanted} of completion"
        raise context_exceeded(param, longest, f"{num_prompt} tokens of prompt{asked}")
    if wanted is not None or usual is None:
        return sampling
    return replace(sampling, max_tokens=min(usual, longest - num_prompt))


def context_exceeded(param: str, longest: int, asked: str) -> RequestError:
    """The refusal that clients recognise by its code and by ``maximum context length``."""
    return RequestError(
        param,
        f"this model's maximum context length is {longest} tokens, but {asked} were requested",
        code="context_length_exceeded",
        remedy="shorten the prompt or lower max_tokens",
    )


def check_generation(body: GenerationBody, *, priorities: bool) -> None:
    """Rules between fields that every generating endpoint shares."""
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options", "stream_options needs stream: true")
    if body.stream and body.prompt_logprobs is not None:
        raise RequestError(
            "prompt_logprobs",
            "a stream does not tell prompt_logprobs",
            remedy="set stream to false",
        )
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise RequestError("best_of", "best_of must equal n; ranking more choices is not offered")
    if body.priority is not None and not priorities:
        raise RequestError(
            "priority",
            "this server does not order requests by priority",
            remedy="set scheduling.policy to priority",
        )


def _inside(name: str, given: Sequence[int] | None, info: ModelInfo) -> tuple[int, ...]:
    ids = tuple(given or ())
    if any(token >= info.vocab_size for token in ids):
        raise RequestError(name, f"token ids are below {info.vocab_size}")
    return ids


def _logit_bias(given: Mapping[str, float], vocab_size: int) -> dict[int, float]:
    bias: dict[int, float] = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 11 and int(key) < vocab_size):
            raise RequestError("logit_bias", f"keys are token ids below {vocab_size}, in decimal")
        bias[int(key)] = value
    return bias
