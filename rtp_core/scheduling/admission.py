"""From a request to its sequences: bounds first, then one sequence a choice."""

from __future__ import annotations

import secrets

from rtp_core.api import EngineLimits, Request
from rtp_core.errors import RequestError
from rtp_core.kv.cache import KVCache
from rtp_core.scheduling.sequence import SEED_MASK, Sequence


def expand(
    request: Request, cache: KVCache, limits: EngineLimits, eos_token_ids: frozenset[int]
) -> list[Sequence]:
    """One sequence a choice, all with the same seed (the choice enters the noise).

    Raises RequestError when the prompt is empty or cannot ever fit.
    """
    limit = check_length(request, cache, limits)
    sampling = request.sampling
    seed = secrets.randbits(64) if sampling.seed is None else sampling.seed & SEED_MASK
    stops = frozenset(sampling.stop_token_ids)
    if not sampling.ignore_eos:
        stops |= eos_token_ids
    prompt = request.prompt_token_ids
    return [
        Sequence(
            sequence_id=f"{request.request_id}/{choice}",
            request=request,
            choice=choice,
            seed=seed,
            token_ids=list(prompt),
            num_prompt=len(prompt),
            limit=limit,
            stop_ids=stops,
            blocks=cache.open(
                request.tenant, request.cache_salt, request.kv_quality, request.media
            ),
            waiting_for=set(request.waits_for),
        )
        for choice in range(sampling.n)
    ]


def check_length(request: Request, cache: KVCache, limits: EngineLimits) -> int:
    """The length at which the request's sequences end."""
    num_prompt = len(request.prompt_token_ids)
    if num_prompt == 0:
        raise RequestError("prompt", "the prompt is empty", remedy="send at least one token")
    wanted = request.sampling.max_tokens
    total = num_prompt + (1 if wanted is None else wanted)
    longest = limits.max_model_len
    if total > longest:
        asked = "" if wanted is None else f" and {wanted} of completion"
        raise RequestError(
            "prompt",
            f"this model's maximum context length is {longest} tokens, but {num_prompt} tokens "
            f"of prompt{asked} were requested",
            code="context_length_exceeded",
            remedy="shorten the prompt or lower max_tokens",
        )
    room = cache.max_tokens
    if total > room:
        raise RequestError(
            "prompt",
            f"{total} tokens cannot ever fit the KV cache of {room} tokens",
            code="context_length_exceeded",
            remedy="shorten the prompt, lower max_tokens, or raise kv.memory",
        )
    return min(longest, room) if wanted is None else total
