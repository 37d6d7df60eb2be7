"""What enters the engine and what leaves it. Plain data; travels between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rtp_core.api.kv import KVQuality
from rtp_core.api.sampling_params import SamplingParams


class FinishReason(StrEnum):
    """Why a sequence ended. A request ends exactly once."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """A run of prompt positions whose embeddings come from an encoder, not the table.

    `digest` names the media item and its preprocessing; it enters the block hashes.
    """

    start: int
    length: int
    digest: str
    encoder: str


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt with its sampling parameters.

    `waits_for` names conditions (``"features:…"``, ``"kv:…"``, ``"grammar"``) that must be
    reported as met before the request is scheduled; it keeps its arrival time meanwhile.
    `tenant` and `cache_salt` separate prefix-cache entries; blocks never cross them.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    arrival_time_s: float = 0.0
    priority: int = 0
    tenant: str = ""
    cache_salt: str = ""
    kv_quality: KVQuality = KVQuality.HIGH
    media: tuple[MediaSpan, ...] = ()
    waits_for: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of one emitted token and of the best alternatives, raw distribution."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """Engine-clock seconds of the stations of a request; 0.0 = not reached."""

    arrival_s: float
    scheduled_s: float = 0.0
    first_token_s: float = 0.0
    finished_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """New tokens of one choice of one request, at most one event a step and choice.

    `finish_reason` set = last event of this choice. `stop_reason` is the stop token id that
    ended it, if any. `error` explains FinishReason.ERROR in words fit for the client.
    `prompt_logprobs` go on where those of earlier events ended, from the prompt's second token;
    choice 0 has them.
    """

    request_id: str
    choice: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    num_cached_tokens: int = 0
    error: str | None = None
    timing: RequestTiming | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
